"""Search for the objects reachable from an object: items, attributes and slots, variables of
closures, and all other referents known to Python's garbage collector.

Every object appears once, with its place (``result.scores['cls'][0]``). Modules, classes and
objects belonging to Python or torch themselves are borders.
"""

from __future__ import annotations

import gc
import io
import logging
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from planc.errors import TraceError
from planc.modules.closures import default_values, filled_cells

Part = tuple[str, Any]

_SCALARS = (int, float, complex, str, bytes, bytearray, types.NoneType, range, slice, Enum)
_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator)
PLAIN = (*_SCALARS, *_TORCH, torch.UntypedStorage, np.generic, np.dtype)
BORDERS = (
    *(nn.Module, type, types.ModuleType, types.CodeType, types.FrameType, types.TracebackType),
    *(logging.Logger, io.IOBase, FakeTensorMode, TorchFunctionMode, TorchDispatchMode),
)
_FAKE = ("._", ".fake_mode", ".constant", ".pytype", ".dispatch_keys", ".real_tensor")
_UNFINISHED = (types.CoroutineType, types.AsyncGeneratorType)
_SEQUENCES: tuple[Any, ...] = (tuple, list, deque)
_COLLECTED = 1 << 14  # type flag: the garbage collector tracks its objects
_MOST = 1_000_000  # objects in one result


class Unseen(TraceError):
    """A part of a result cannot be searched."""


class Search:
    """A search for the objects inside some objects.

    Args:
        items: returns the items of an iterator; by default iterators are not consumed.
        border: True for objects to leave out.
        shallow: True for objects to report without searching them.
        unordered: puts the items of a set in an order.
        private: include attributes with names beginning with an underscore.
        strict: raise an error for objects without a way to search them.
    """

    def __init__(
        self,
        items: Callable[[str, Any], list[Any]] | None = None,
        border: Callable[[Any], bool] = lambda found: False,
        shallow: Callable[[Any], bool] = lambda found: False,
        unordered: Callable[[Any], list[Any]] = list,
        private: bool = True,
        strict: bool = False,
    ) -> None:
        self.items, self.border, self.shallow, self.unordered = items, border, shallow, unordered
        self.private, self.strict = private, strict
        self._seen: dict[int, Any] = {}  # kept alive, so no id is used twice

    def visit(self, place: str, root: Any) -> Iterator[Part]:
        """The objects in ``root``, itself first, each before its parts; plain ones each time.

        Raises:
            Unseen: an object cannot be searched; names its type and its place.
        """
        stack: list[Part] = [(place, root)]
        while stack:
            place, found = stack.pop()
            if isinstance(found, PLAIN):
                yield place, found
            elif id(found) not in self._seen and not self.border(found):
                self._seen[id(found)] = found
                yield place, found
                stack.extend(reversed(self._parts(place, found)))

    def _parts(self, place: str, found: Any) -> list[Part]:
        if isinstance(found, BORDERS) or self.shallow(found):
            return []
        if self.strict and (len(self._seen) > _MOST or _is_opaque(found)):
            raise Unseen(
                f"{place} is a {_type_name(found)}, which cannot be looked into: return its "
                "tensors in tuples, lists, dicts or dataclasses"
            )
        if self.items is not None and is_iterator(found):
            return [(f"{place}[{i}]", x) for i, x in enumerate(self.items(place, found))]
        if isinstance(found, set | frozenset):
            items = [(f"{{{i}}}", item) for i, item in enumerate(self.unordered(found))]
            return [(place + name, part) for name, part in (*items, *_attributes(found))]
        return [
            (place + name, part)
            for name, part in parts(found)
            if self.private or not name.startswith("._")
        ]


def parts(holder: Any) -> list[Part]:
    """The objects held by ``holder``, with their names there: items, attributes, the rest."""
    if isinstance(holder, types.FunctionType):
        return _of_function(holder)
    if isinstance(holder, weakref.ref):
        return [("()", holder())]
    if isinstance(holder, np.ndarray):
        return (
            [(f".flat[{i}]", x) for i, x in enumerate(holder.flat)] if holder.dtype == "O" else []
        )
    if isinstance(holder, torch.Tensor):
        own = _FAKE if isinstance(holder, FakeTensor) else ()
        return [part for part in _attributes(holder) if not part[0].startswith(own)]
    named = [*_items(holder), *_attributes(holder)]
    known = {id(part) for _, part in named} | {id(getattr(holder, "__dict__", None))}
    known |= {id(type(holder))}
    rest = [part for part in gc.get_referents(holder) if id(part) not in known]
    return named + [(f".<{type(part).__name__}>", part) for part in rest]


def _items(holder: Any) -> Iterator[Part]:
    if isinstance(holder, dict):
        for key, item in dict.items(holder):
            yield f"[{key!r}]" if isinstance(key, _SCALARS) else "[...]", item
    for kind in _SEQUENCES:
        if isinstance(holder, kind):
            items: Iterator[Any] = kind.__iter__(holder)  # not the iterator of its class
            yield from ((f"[{i}]", item) for i, item in enumerate(items))


def _attributes(holder: Any) -> list[Part]:
    found: list[Part] = []
    held = getattr(holder, "__dict__", None)
    if isinstance(held, Mapping):
        found += [(f".{name}", value) for name, value in held.items()]
    for kind in type(holder).__mro__:
        if "__slots__" in vars(kind):
            for name, slot in vars(kind).items():
                if isinstance(slot, types.MemberDescriptorType) and hasattr(holder, name):
                    found.append((f".{name}", getattr(holder, name)))
    return found


def _of_function(function: types.FunctionType) -> list[Part]:
    found = [(f".<{name}>", cell.cell_contents) for name, cell in filled_cells(function)]
    found += [(f".<default {i}>", value) for i, value in enumerate(default_values(function))]
    return found + _attributes(function)


def is_iterator(found: Any) -> bool:
    """True if an object yields its items once, computing each on request."""
    return hasattr(type(found), "__next__") and not isinstance(found, io.IOBase)


def _is_opaque(found: Any) -> bool:
    """True if an object may hold others invisible to Python."""
    kind = type(found)
    if isinstance(found, _UNFINISHED) or kind.__name__ == "PyCapsule":
        return True
    if isinstance(found, np.ndarray):
        return bool(found.dtype.hasobject) and found.dtype != "O"
    if type(kind).__name__ == "pybind11_type":
        return True
    followed = kind.__flags__ & _COLLECTED or kind.__basicsize__ <= object.__basicsize__
    return not followed and kind.__module__.partition(".")[0] not in sys.stdlib_module_names


def _type_name(found: Any) -> str:
    kind = type(found)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
