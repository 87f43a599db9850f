"""Results of a traced run: their tensors, in order.

:class:`Result` describes the returned object. Iterators are consumed during the run, because they
compute their items on request.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from planc.ir.expressions import Scalar, Size
from planc.modules.held import held_objects
from planc.modules.nesting import leaves, named_leaves
from planc.modules.search import PLAIN, Part, Search, Unseen

_MOST_ITEMS = 10_000
_DEEPEST = 50  # levels of plain containers


class Items:
    """The items of iterators, each consumed once."""

    def __init__(self) -> None:
        self._consumed: dict[int, tuple[Any, list[Any]]] = {}

    def __call__(self, place: str, iterator: Any) -> list[Any]:
        """The items of an iterator.

        Raises:
            Unseen: it does not end.
        """
        if id(iterator) not in self._consumed:
            items = list(itertools.islice(iterator, _MOST_ITEMS + 1))
            if len(items) > _MOST_ITEMS:
                raise Unseen(
                    f"{place} is a {type(iterator).__name__} that has not ended after "
                    f"{_MOST_ITEMS} items: return a list of the items that count"
                )
            self._consumed[id(iterator)] = iterator, items
        return self._consumed[id(iterator)][1]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The object returned by a run, with its ``tensors`` and sizes (``numbers``).

    ``simple`` is True for a tensor or plain containers of tensors, in no need of a search.
    ``state`` has the ids of objects handed back to the model; ``own`` is True for objects of plain
    data held by the model.
    """

    returned: Any
    simple: bool
    state: Container[int]
    own: Callable[[Any], bool]
    tensors: list[torch.Tensor] = field(default_factory=list)
    numbers: list[Size | Scalar] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    items: Items = field(default_factory=Items)

    def in_order(self, ids: Mapping[int, int]) -> list[torch.Tensor]:
        """The tensors: first those in nested containers, in order; then the others, in the order of
        the run, given by ``ids`` of objects.
        """
        if not self.simple:
            nested = nested_tensors(self)
            others = {id(tensor): tensor for tensor in self.tensors}
            for tensor in nested:
                others.pop(id(tensor), None)
            last = sorted(others.values(), key=lambda tensor: ids.get(id(tensor), len(ids)))
            self.tensors[:] = [*nested, *last]
        return self.tensors


def result_of(model: nn.Module, returned: Any, own: Callable[[Any], bool]) -> Result:
    """The result of a model's run, searched while the run lasts; ``own`` comes from
    :func:`own_objects`.

    Raises:
        Unseen: a part of it cannot be searched, or does not end.
    """
    simple = is_simple(returned)
    state = {} if simple else handed_back(model, returned)
    result = Result(returned, simple, state, own)
    if simple:
        found = leaves(returned)
    else:
        search = Search(result.items, lambda found: id(found) in state, own, strict=True)
        result.parts.extend(search.visit("result", returned))
        found = (part for _, part in result.parts)
    for part in found:
        if isinstance(part, torch.Tensor):
            result.tensors.append(part)
        elif isinstance(part, Size | Scalar):
            result.numbers.append(part)
    return result


def own_objects(model: nn.Module) -> Callable[[Any], bool]:
    """A predicate for objects of plain data held by the model, such as a configuration.

    Their content is not part of a result, unless a run puts tensors into them.
    """
    held: set[int] | None = None

    def own(found: Any) -> bool:
        nonlocal held
        if held is None:
            held = {id(one) for _, _, one in held_objects(model)}
        if id(found) not in held:
            return False
        inside = Search(None).visit("", found)
        return not any(isinstance(part, torch.Tensor) for _, part in inside)

    return own


def is_simple(returned: Any, depth: int = 0) -> bool:
    """True if :func:`planc.modules.nesting.leaves` covers everything in a result."""
    if isinstance(returned, torch.Tensor):
        return not vars(returned)
    if depth == _DEEPEST:  # it may be cyclic
        return False
    if type(returned) is dict:
        plain = all(isinstance(key, PLAIN) for key in returned)
        return plain and all(is_simple(item, depth + 1) for item in returned.values())
    if type(returned) in (tuple, list):
        return all(is_simple(item, depth + 1) for item in returned)
    return isinstance(returned, PLAIN)


def output_names(result: Result) -> tuple[str, ...]:
    """The places of the tensors in nested containers, the first ones of :meth:`Result.in_order`."""
    if not nested_tensors(result):
        return ()
    named = named_leaves(result.returned)
    return tuple(name for name, leaf in named if isinstance(leaf, torch.Tensor))


def nested_tensors(result: Result) -> list[torch.Tensor]:
    """The tensors in the nested containers of a result; empty if the containers are cyclic."""
    try:
        return [leaf for leaf in leaves(result.returned) if isinstance(leaf, torch.Tensor)]
    except RecursionError:
        return []


def handed_back(model: nn.Module, named: Any) -> dict[int, str]:
    """The state of a model among ``named`` values (a mapping or a dataclass), such as a cache of
    keys and values.

    An object is state if one of the model's own modules takes an argument of the same name and
    type. Returns names and types by object id.
    """
    if isinstance(named, Mapping):
        items = list(named.items())
    elif dataclasses.is_dataclass(named) and not isinstance(named, type):
        items = [(f.name, getattr(named, f.name, None)) for f in dataclasses.fields(named)]
    else:
        return {}
    objects = [(name, x) for name, x in items if not (is_simple(x) or isinstance(x, Mapping))]
    kinds = dict.fromkeys(map(type, model.modules())) if objects else {}
    return {
        id(x): f"{name}, a {type(x).__name__}"
        for name, x in objects
        if any(_takes(kind, str(name), type(x)) for kind in kinds)
    }


def _takes(module: type[nn.Module], name: str, kind: type) -> bool:
    """True if ``forward`` has a parameter ``name`` for objects of class ``kind``."""
    try:
        taken = inspect.signature(module.forward).parameters.get(name)
    except (TypeError, ValueError):
        return False
    words = set(re.findall(r"\w+", str(taken.annotation))) if taken is not None else set()
    return any(base.__name__ in words for base in kind.__mro__ if base.__module__ != "builtins")
