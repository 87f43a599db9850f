"""State left by earlier runs, hidden from a trace: a model is traced as if it had never run.

An attribute counts as such state if a method reached by forward stores it and its initial value is
known: a literal or an empty container in ``__init__``, a class attribute, or nothing. A trace must
store it again, with the same kind of value. Otherwise it is a setting of the user, and visible to
the next attempt.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from planc.modules.closures import inner_tensors
from planc.modules.reach import CONTAINERS, Reach, one_at_a_time, reach_of, stored_attributes
from planc.modules.tree import is_cached

_ABSENT: Any = object()
_UNKNOWN: Any = object()
_EMPTY: Any = object()
_OWN = frozenset(vars(nn.Module()))
_BUILDS = frozenset({"BUILD_MAP", "BUILD_LIST", "BUILD_SET"})
_LITERALS = frozenset({"LOAD_CONST", "LOAD_SMALL_INT"})
_SIZES = (int, float, tuple, list, str, type(None))
T = TypeVar("T")


class Forgetting:
    """The state hidden from the runs of one trace; what a run needs of it is shown to the next."""

    def __init__(self) -> None:
        self._kept: set[Hashable] = set()
        self._all_kept = self._complete = False
        self._attributes: list[tuple[Hashable, dict[str, Any], str, Any, Any]] = []
        self._containers: list[tuple[Any, dict[Any, Any]]] = []

    def repeated(self, run: Callable[[], T], failure: type[Exception] | tuple[()] = ()) -> T:
        """Return the result of the first run that stores all hidden state again.

        A ``run`` calls ``begin`` and, at its end, ``check``. After a ``failure`` it is repeated
        with nothing hidden.
        """
        try:
            while True:
                result = run()
                if self._complete:
                    return result
        except failure:
            if not (self._attributes or self._containers):
                raise
        self._all_kept = True
        return self.repeated(run, failure)

    def begin(self, model: nn.Module, reach: Reach) -> None:
        """Reset the attributes of a copy to their values before any run."""
        self._attributes, self._containers = [], []
        for path, module in () if self._all_kept else model.named_modules():
            for name, first in left_by_runs(module, reach):
                if (path, name) not in self._kept:
                    held = vars(module)
                    self._attributes.append(((path, name), held, name, _reset(held, name), first))
                    _put(held, name, first)

    def hide(self, reach: Reach) -> None:
        """Remove remembered tensors and sizes from the dictionaries written to by code."""
        for held in () if self._all_kept else reach.written:
            if isinstance(held, dict):
                found = {
                    key: value
                    for key, value in held.items()
                    if _is_memory(key, value) and (id(held), key) not in self._kept
                }
                for key in found:
                    del held[key]
                if found:
                    self._containers.append((held, found))

    def check(self) -> None:
        """Find the hidden state that the run stored again; the rest is shown from now on."""
        missed: set[Hashable] = set()
        for place, held, name, old, first in self._attributes:
            now = held.get(name, _ABSENT)
            if _is_still(now, first) or not _alike(old, now):
                missed.add(place)
        for held, found in self._containers:
            missed.update(
                (id(held), key)
                for key, value in found.items()
                if key not in held or not _alike(value, held[key])
            )
        self._kept |= missed
        self._complete = not missed


def forget_tensors(model: nn.Module) -> None:
    """Reset the state left by runs in modules of a copy with tensors among it.

    These tensors were computed from the original's weights; sizes and flags beside them describe
    them.
    """
    with one_at_a_time:
        reach = reach_of(model)
    for module in model.modules():
        left = list(left_by_runs(module, reach))
        if any(True for name, _ in left for _ in inner_tensors(vars(module)[name])):
            for name, first in left:
                _put(vars(module), name, first)


def left_by_runs(module: nn.Module, reach: Reach) -> Iterator[tuple[str, Any]]:
    """The attributes of a module changed by runs, with their values before."""
    stored = {name for base in type(module).__mro__ for name in reach.stores.get(base, ())}
    for name in (stored | reach.filled) & vars(module).keys() - _OWN:
        value = vars(module)[name]
        if isinstance(value, nn.Module):
            continue
        first = _first_values(type(module)).get(name, _ABSENT)
        filled = type(value) in CONTAINERS and name in reach.filled and first is _EMPTY
        if first is _UNKNOWN or not (name in stored or filled) or _is_still(value, first):
            continue
        if first is not _ABSENT or isinstance(
            getattr(type(module), name, None), (*_SIZES, torch.Tensor)
        ):
            yield name, first


def forget_properties(modules: Iterable[nn.Module]) -> None:
    """Drop the values of cached properties; they are computed again on access."""
    for module in modules:
        for name in [name for name in vars(module).keys() - _OWN if is_cached(module, name)]:
            del vars(module)[name]


def _reset(held: dict[str, Any], name: str) -> Any:
    """The value of an attribute, copied if it is a container."""
    value = held[name]
    return value.copy() if type(value) in CONTAINERS else value


def _put(held: dict[str, Any], name: str, first: Any) -> None:
    if first is _EMPTY and type(held[name]) in CONTAINERS:
        held[name].clear()  # others may hold it
    elif first is _ABSENT or first is _EMPTY:
        del held[name]
    else:
        held[name] = first


def _is_still(value: Any, first: Any) -> bool:
    if first is _EMPTY:
        return type(value) in CONTAINERS and not value
    return value is first or (
        type(value) is type(first) and type(value) in _SIZES and value == first
    )


def _alike(old: Any, new: Any) -> bool:
    """True if two values are of one kind, so one may replace the other."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return old.dtype == new.dtype and old.dim() == new.dim()
    if isinstance(old, bool | int | float) and isinstance(new, bool | int | float):
        return isinstance(old, bool) == isinstance(new, bool)
    return isinstance(new, type(old)) or isinstance(old, type(new))


def _is_memory(key: Any, value: Any) -> bool:
    """True if an entry of a dictionary is keyed by sizes, or holds tensors."""
    if isinstance(value, dict):
        return any(_is_memory(*item) for item in value.items())
    keys = key if isinstance(key, tuple) else (key,)
    if any(type(item) is int or isinstance(item, torch.Size) for item in keys):
        return not callable(value)
    return any(True for _ in inner_tensors(value))


_known: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()


def _first_values(kind: type) -> dict[str, Any]:
    """The attribute values set by the constructors of a class."""
    if kind not in _known:
        found: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            made = vars(base).get("__init__")
            if isinstance(made, types.FunctionType) and base is not nn.Module:
                for name in made.__code__.co_names:
                    called = vars(base).get(name)
                    if isinstance(called, types.FunctionType):
                        found |= dict.fromkeys(stored_attributes(called.__code__), _UNKNOWN)
                found |= _assigned(made.__code__)
        _known[kind] = found
    return _known[kind]


def _assigned(code: types.CodeType) -> dict[str, Any]:
    """The attributes set by a constructor, with their values if these are literals."""
    found: dict[str, Any] = {}
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL")]
    for i, step in enumerate(steps):
        if step.opname == "STORE_ATTR" and i > 1 and _loads(steps[i - 1], code.co_varnames[0]):
            first = step.argval not in found and type(steps[i - 1].argval) is str
            found[step.argval] = _literal(steps[i - 2]) if first else _UNKNOWN
    return found


def _loads(step: dis.Instruction, name: str) -> bool:
    """True if an instruction loads a local variable, as the last one if it loads two."""
    loaded = step.argval[-1] if isinstance(step.argval, tuple) else step.argval
    return "LOAD_FAST" in step.opname and loaded == name


def _literal(step: dis.Instruction) -> Any:
    if step.opname in _BUILDS and step.arg == 0:
        return _EMPTY
    return step.argval if step.opname in _LITERALS else _UNKNOWN
