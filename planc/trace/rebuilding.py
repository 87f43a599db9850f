"""Reconstruction of results from other tensors, for the rewritten graph.

The result of a run becomes nested containers with references in place of tensors, or
:class:`Rebuilt`: a copy of an arbitrary object, including functions and iterators in it.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from planc.errors import AnalysisError
from planc.ir.graph import Ref
from planc.modules.closures import is_filled
from planc.modules.nesting import leaves, map_leaves
from planc.modules.search import PLAIN, Search, is_iterator
from planc.trace.numbers import noted
from planc.trace.results import Items, Result, nested_tensors


class Maker:
    """Makes results like one returned by a run; ``parts`` are its tensors and numbers."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.parts = (*result.tensors, *result.numbers)

    def __repr__(self) -> str:
        plain = [(place, part) for place, part in self.result.parts if isinstance(part, PLAIN)]
        known = {id(number) for number in self.result.numbers}
        return str([(place, part) for place, part in plain if id(part) not in known])

    def __call__(self, parts: Sequence[Any]) -> Any:
        """A copy of the result with other parts, of the same number and in order."""
        memo: dict[int, Any] = {id(old): new for old, new in zip(self.parts, parts, strict=True)}
        iterators: list[Any] = []
        functions: list[types.FunctionType] = []
        for _, part in self.result.parts:
            if is_iterator(part):
                iterators.append(part)
            elif isinstance(part, types.FunctionType):
                functions.append(part)
                memo[id(part)] = _unbound(part)
        for iterator in reversed(iterators):  # the inner ones first
            items = self.result.items("", iterator)
            memo[id(iterator)] = iter(copy.deepcopy(items, memo))
        for function in functions:
            _bind(function, memo)
        return copy.deepcopy(self.result.returned, memo)


class Rebuilt(NamedTuple):
    """A result made of parts: references for tensors and numbers for sizes."""

    make: Maker
    parts: tuple[Any, ...]


def rebuilt(result: Result, ref: Callable[[torch.Tensor], Ref]) -> Rebuilt:
    """The recipe for results like ``result`` from other tensors.

    Raises:
        AnalysisError: such results cannot be rebuilt; names the obstacle.
    """
    for place, part in result.parts:
        if isinstance(part, nn.Module) or result.own(part):
            raise AnalysisError(f"{place} is a {type(part).__name__} of the model's own")
    make, others = Maker(result), [_other(tensor) for tensor in result.tensors]
    try:
        copied = make((*others, *map(noted, result.numbers)))
    except Exception as error:
        kind = type(result.returned).__name__
        raise AnalysisError(f"the {kind} cannot be copied: {error}") from error
    parts = list(Search(Items()).visit("result", copied))
    found = {id(part) for _, part in parts}
    for place, part in result.parts:
        if isinstance(part, torch.Tensor) and id(part) in found:
            raise AnalysisError(f"copies hold the same {place}")
    if len(parts) != len(result.parts) or not found.issuperset(map(id, others)):
        raise AnalysisError(f"copies of the {type(result.returned).__name__} lose what it holds")
    return Rebuilt(make, (*map(ref, result.tensors), *map(noted, result.numbers)))


def _other(tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor object with the same content."""
    with torch.inference_mode(), torch._C.DisableTorchFunction():
        return tensor.detach()


def _unbound(function: types.FunctionType) -> types.FunctionType:
    """A copy of a function over new, empty cells."""
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    copied = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells or None
    )
    copied.__qualname__ = function.__qualname__
    return copied


def _bind(function: types.FunctionType, memo: dict[int, Any]) -> None:
    copied = memo[id(function)]
    copied.__defaults__ = copy.deepcopy(function.__defaults__, memo)
    copied.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__, memo)
    vars(copied).update(copy.deepcopy(vars(function), memo))
    for old, new in zip(function.__closure__ or (), copied.__closure__ or (), strict=True):
        if is_filled(old):
            new.cell_contents = copy.deepcopy(old.cell_contents, memo)


def specification(result: Result, ref: Callable[[torch.Tensor], Ref]) -> Any:
    """The result with references for tensors and numbers for sizes, if nested containers hold them
    all; else :class:`Rebuilt`.

    Raises:
        AnalysisError: the rewritten graph cannot make such results; names the obstacle.
    """
    if result.simple or _is_nested(result):
        try:
            return map_leaves(lambda leaf: _frozen(leaf, ref, result), result.returned)
        except Exception:  # a container restricted to tensors
            return rebuilt(result, ref)
    return rebuilt(result, ref)


def _is_nested(result: Result) -> bool:
    """True if nested containers hold all tensors, beside plain objects only."""
    held = {id(tensor) for tensor in nested_tensors(result)}
    return (
        bool(held)
        and held.issuperset(map(id, result.tensors))
        and all(
            isinstance(leaf, (torch.Tensor, *PLAIN)) or id(leaf) in result.state
            for leaf in leaves(result.returned)
        )
    )


def _frozen(leaf: Any, ref: Callable[[torch.Tensor], Ref], result: Result) -> Any:
    if isinstance(leaf, torch.Tensor):
        return ref(leaf)
    if id(leaf) in result.state:
        return None
    return noted(leaf)
