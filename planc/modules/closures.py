"""Functions in the copy of a model: hooks, patched methods, closures, partial applications.

``copy.deepcopy`` returns functions unchanged. A closure, a default argument or a cache would keep
the original's modules and lists alive in the copy; :class:`Bindings` replaces each such function by
one bound to the objects of the copy.
"""

from __future__ import annotations

import copy
import dis
import functools
import operator
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import nn

Memo = dict[int, Any]
CACHED: type = type(functools.lru_cache(len))
_FIXED = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, torch.dtype)
_SCALARS = (int, float, complex, str, bytes, type(None), torch.device, *_FIXED)
_EMPTIES = frozenset({bool, OrderedDict, dict, list, tuple, set, type(None)})
_UNBOUND = frozenset({torch.Tensor, nn.Parameter, int, float, bool, str, type(None)})
_DEPTH = 6  # levels of nested objects searched for tensors


def attribute_values(module: nn.Module) -> Iterator[Any]:
    """The attributes of a module, without scalars, empty containers and submodules."""
    for name, value in vars(module).items():
        if type(value) in _EMPTIES and not value:
            continue
        empty = isinstance(value, dict | list | tuple | set) and not value
        if name != "_modules" and not empty and not isinstance(value, _SCALARS):
            yield value


def inner_tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in containers, objects and modules, nested ones included."""
    return (item for item in reached(value) if isinstance(item, torch.Tensor))


def reached(value: Any, *, functions: bool = False) -> Iterator[Any]:
    """``value`` and its nested objects other than scalars, to a depth of :data:`_DEPTH`.

    With ``functions``, the closures and defaults of functions are included.
    """
    stack: list[tuple[Any, int]] = [(value, _DEPTH)]
    seen: set[int] = set()
    while stack:
        item, left = stack.pop()
        if isinstance(item, _SCALARS) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if left and not isinstance(item, torch.Tensor):
            if functions and isinstance(item, types.FunctionType):
                held = (cell.cell_contents for _, cell in filled_cells(item))
                stack.extend((inner, left - 1) for inner in (*held, *default_values(item)))
            stack.extend((inner, left - 1) for inner in _items(item))


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from list(value.values())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from list(value)
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    if type(getattr(value, "__dict__", None)) is dict and not isinstance(value, nn.Module):
        yield from list(vars(value).values())


def filled_cells(function: types.FunctionType) -> Iterator[tuple[str, types.CellType]]:
    """The cells of a closure with an object in them, by the names of their variables."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if is_filled(cell):
            yield name, cell


def default_values(function: types.FunctionType) -> tuple[Any, ...]:
    """The default values of a function's parameters."""
    return (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())


class Bindings:
    """The functions of a copy, in place of the original's.

    ``memo`` is the memo of the deep copy; ``replace`` copies a tensor. Unless ``apart``, functions
    reached by hooks alone keep the caller's objects without any part of the model.
    """

    def __init__(
        self, memo: Memo, replace: Callable[[torch.Tensor], torch.Tensor], apart: bool
    ) -> None:
        self._memo = memo
        self._replace = replace
        self._apart = apart
        self._in_hooks = False
        self._own: set[int] = {id(copied) for copied in memo.values()}
        self._made: Memo = {}  # functions and cells, by id of the original
        self._in_use: set[int] = set()  # copies with a reference to them
        self._seen: set[int] = set()

    def bind(self, modules: Collection[nn.Module]) -> None:
        """Replace the functions held by the modules and other objects of the copy."""
        for module in modules:
            self._attributes(module)
        self._in_hooks = True
        for module in modules:
            for name, value in vars(module).items():
                if is_hooks(name, value):
                    self._renew(value, value.items())
        held = (t for m in modules for t in (*m._parameters.values(), *m._buffers.values()))
        for tensor in {id(tensor): tensor for tensor in held if tensor is not None}.values():
            for hooks in filter(None, tensor_hooks(tensor)):
                self._renew(hooks, hooks.items())

    def bound(self, value: Any) -> Any:
        """``value``, an object of the copy, bound to the functions of the copy; containers change
        in place.
        """
        if type(value) in _UNBOUND:
            return value
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            function, owner = self.bound(value.__func__), self._copied(value.__self__)
            same = function is value.__func__ and owner is value.__self__
            return value if same else types.MethodType(function, owner)
        if type(value) is functools.partial:
            return self._partial(value)
        if isinstance(value, CACHED):
            return self._cached(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if id(value) in self._own and id(value) not in self._seen:
            self._seen.add(id(value))
            self._contents(value)
        return value

    def _contents(self, value: Any) -> None:
        if isinstance(value, dict):
            self._renew(value, value.items())
        elif isinstance(value, list | deque):
            self._renew(value, enumerate(value))
        elif isinstance(value, set):
            items = [self.bound(item) for item in value]
            value.clear()
            value.update(items)
        if type(getattr(value, "__dict__", None)) is dict and not isinstance(value, torch.Tensor):
            self._attributes(value)

    def _attributes(self, holder: Any) -> None:
        attributes, is_module = vars(holder), isinstance(holder, nn.Module)
        for name, value in list(attributes.items()):
            if type(value) in _UNBOUND or (is_module and is_hooks(name, value)):
                continue
            if (new := self.bound(value)) is not value:
                attributes[name] = new

    def _renew(self, holder: Any, items: Any) -> None:
        for key, item in list(items):
            if (new := self.bound(item)) is not item:
                holder[key] = new

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        items = [self.bound(item) for item in value]
        if all(map(operator.is_, items, value)):
            return value
        made: Any = getattr(type(value), "_make", type(value))
        renewed: tuple[Any, ...] = made(items)
        return renewed

    def _partial(self, value: functools.partial[Any]) -> functools.partial[Any]:
        old = (value.func, *value.args, *value.keywords.values())
        new = [self._copied(item) for item in old]
        if all(map(operator.is_, old, new)):
            return value
        count = 1 + len(value.args)
        keywords = dict(zip(value.keywords, new[count:], strict=True))
        return functools.partial(new[0], *new[1:count], **keywords)

    def _cached(self, value: Any) -> Any:
        """An empty cache over the function of the copy, if the function was copied."""
        function = self._copied(value.__wrapped__)
        if function is value.__wrapped__:
            return value
        if id(value) not in self._made:
            self._made[id(value)] = functools.lru_cache(**value.cache_parameters())(function)
        return self._made[id(value)]

    def _function(self, old: types.FunctionType) -> Any:
        if id(old) in self._made:
            self._in_use.add(id(old))
            return self._made[id(old)]
        if not (old.__closure__ or old.__defaults__ or old.__kwdefaults__):
            return old
        cells = tuple(self._cell(cell) for cell in old.__closure__ or ())
        new = types.FunctionType(old.__code__, old.__globals__, old.__name__, None, cells or None)
        self._made[id(old)] = new
        pairs = [
            (was.cell_contents, self._filled(was, now))
            for was, now in zip(old.__closure__ or (), cells, strict=True)
            if is_filled(was)
        ]
        defaults = [(item, self._copied(item)) for item in old.__defaults__ or ()]
        keywords: dict[str, Any] = old.__kwdefaults__ or {}
        named = {name: self._copied(item) for name, item in keywords.items()}
        pairs += [*defaults, *zip(keywords.values(), named.values(), strict=True)]
        changed = any(was is not now for was, now in pairs) or _rebinds(old.__code__)
        if not changed and id(old) not in self._in_use:
            self._made[id(old)] = old
            return old
        new.__defaults__ = tuple(item for _, item in defaults) or None
        new.__kwdefaults__ = named or None
        new.__dict__.update(vars(old))
        new.__qualname__, new.__module__, new.__doc__ = (
            old.__qualname__,
            old.__module__,
            old.__doc__,
        )
        return new

    def _cell(self, cell: types.CellType) -> types.CellType:
        if id(cell) not in self._made:
            self._made[id(cell)] = types.CellType()
        found: types.CellType = self._made[id(cell)]
        return found

    def _filled(self, old: types.CellType, new: types.CellType) -> Any:
        if not is_filled(new):
            new.cell_contents = self._copied(old.cell_contents)
        return new.cell_contents

    def _copied(self, value: Any) -> Any:
        """The copy of ``value``, an object held by a function.

        An object without a copy (a lock, a file) stays the same object.
        """
        if isinstance(value, _SCALARS) or id(value) in self._own:
            return value
        if not callable(value) or isinstance(value, nn.Module):
            value = self._deep(value)
        return self.bound(value)

    def _deep(self, value: Any) -> Any:
        if self._in_hooks and not self._apart and not self._holds(value):
            return value
        for tensor in inner_tensors(value):
            if id(tensor) not in self._memo and id(tensor) not in self._own:
                self._memo[id(tensor)] = self._replace(tensor)
        before = len(self._memo)
        try:
            found = copy.deepcopy(value, self._memo)
        except Exception:  # drop objects copied in part from the memo
            for key in list(self._memo)[before:]:
                del self._memo[key]
            found = value
            if type(value) in (list, dict, set, deque):  # the items stay the original's
                found = self._memo[id(value)] = copy.copy(value)
        self._own.update(id(new) for new in [*self._memo.values()][before:])
        self._own.add(id(found))
        return found

    def _holds(self, value: Any) -> bool:
        """True if ``value`` is or leads to an object of the model."""
        return any(id(item) in self._memo for item in reached(value, functions=True))


def tensor_hooks(tensor: torch.Tensor) -> tuple[dict[int, Any] | None, dict[int, Any] | None]:
    """The hooks on a tensor's gradient, and the hooks run after its accumulation."""
    return tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)


def is_hooks(name: str, value: Any) -> bool:
    return "_hooks" in name and isinstance(value, dict)


def is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@functools.lru_cache(4096)
def _rebinds(code: types.CodeType) -> bool:
    """True if a function, or one defined in it, assigns to a variable of the enclosing scope."""
    return any(
        step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in part.co_freevars
        for part in code_objects(code)
        for step in dis.get_instructions(part)
    )


def code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of the functions defined in it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from code_objects(part)
