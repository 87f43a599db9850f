"""Code that a run of a model can reach, by name: a model in, the functions, classes and objects of
modules out. Torch, NumPy and the standard library are not looked into.
"""

from __future__ import annotations

import dis
import functools
import sys
import threading
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn

from planc.modules.closures import CACHED, attribute_values, closed_over, reached

_FOREIGN = frozenset(
    {
        "torch",
        "torchgen",
        "functorch",
        "numpy",
        "scipy",
        "sympy",
        "planc",
        "builtins",
        "__builtin__",
    }
    | set(sys.stdlib_module_names)
)
CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_WEAK = (WeakKeyDictionary, WeakValueDictionary)
_WRITING = frozenset({"setdefault", "update", "append", "add", "extend", "__setitem__"})
_STORE_ITEM, _STORE_ATTRIBUTE = dis.opmap["STORE_SUBSCR"], dis.opmap["STORE_ATTR"]
_DEPTH = 3  # containers and objects in one another

one_at_a_time = threading.RLock()  # what traces change are objects of the whole process
Slot = tuple[Any, Any]  # a dictionary, list, class or cell, and the place in it


class Reach:
    """What the forward methods of some classes, some functions and all that they name can reach.

    ``caches`` has the places of functions under ``functools.lru_cache``; ``containers`` the
    dictionaries, lists and sets that live longer than a run; ``variables`` the global variables;
    ``classes`` the classes, and ``stores`` the attributes that methods of modules store.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self.caches: dict[tuple[int, Any], Slot] = {}
        self.containers: dict[int, Any] = {}
        self.variables: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
        self.classes: dict[type, None] = {}
        self.stores: dict[type, set[str]] = {}
        self._named: dict[str, list[int]] = {}  # the containers by the names of variables
        self._names: set[str] = {"forward"}
        self._stored: set[str] = set()  # names in code that writes to containers
        self._modules: dict[int, types.ModuleType] = {}
        self._seen: set[int] = set()
        self._absent: set[str] = set()  # names in code that may become those of modules
        self._waiting: list[types.FunctionType] = []
        self._alive: list[Any] = []
        self._read: list[tuple[Any, str, Any]] = []  # what had which value by which name
        found = set(roots)
        for root in found:
            self._value(root, None, "")
        self._close()
        bases = {base for root in found if isinstance(root, type) for base in root.__mro__}
        self._note_stores([base for base in bases & self.classes.keys() if _is_module(base)])

    @property
    def written(self) -> Iterator[Any]:
        """The containers that some code writes to, by the name that it has for them."""
        found = {i for name in self._stored & self._named.keys() for i in self._named[name]}
        return (self.containers[i] for i in found)

    @property
    def filled(self) -> set[str]:
        """The names in code that writes to containers."""
        return self._stored

    def is_current(self) -> bool:
        """Whether all names still stand for what they stood for."""
        return self._absent.isdisjoint(sys.modules) and all(
            vars_of(holder).get(name) is value for holder, name, value in self._read
        )

    def _close(self) -> None:
        """Follows names until nothing new is found."""
        done: dict[int, int] = {}
        while True:
            while self._waiting:
                self._function(self._waiting.pop())
            count = len(self._names)
            holders = [*self.classes, *self._modules.values()]
            fresh = [h for h in holders if done.get(id(h)) != count]
            if not fresh:
                return
            for holder in fresh:
                done[id(holder)] = count
                for name in self._names & vars(holder).keys():
                    self._read.append((holder, name, vars(holder)[name]))
                    self._value(vars(holder)[name], (holder, name), name)

    def _note_stores(self, kinds: list[type]) -> None:
        """What methods of modules store that forward calls, one of them the other, by name."""
        methods = [
            (kind, name, function.__code__)
            for kind in kinds
            for name, value in vars(kind).items()
            for function in _layers(_unwrapped(value))
        ]
        names, count = {"forward"}, 0
        while len(names) > count:
            count = len(names)
            for kind, name, code in methods:
                if name in names and name != "__init__":
                    names.update(_names(code))
                    self.stores.setdefault(kind, set()).update(stored_attributes(code))

    def _function(self, function: types.FunctionType) -> None:
        variables = function.__globals__
        for name in self._code(function.__code__):
            if name in variables:
                self.variables[id(variables), name] = (variables, name)
                self._read.append((variables, name, variables[name]))
                self._value(variables[name], (variables, name), name)
            elif (module := _imported(name, variables)) in sys.modules:
                self._value(sys.modules[module], None, name)
            else:
                self._absent.add(module)
        for cell in function.__closure__ or ():
            for value in closed_over(cell):
                self._value(value, (cell, None), "")
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._value(value, None, "")
        if isinstance(wrapped := getattr(function, "__wrapped__", None), types.FunctionType):
            self._value(wrapped, None, "")

    def _code(self, code: types.CodeType) -> Iterator[str]:
        self._names.update(code.co_names)
        steps = code.co_code[::2]
        if _STORE_ITEM in steps or not _WRITING.isdisjoint(code.co_names):
            self._stored.update(code.co_names)
        yield from code.co_names
        for part in code.co_consts:
            if isinstance(part, types.CodeType):
                yield from self._code(part)

    def _value(self, value: Any, slot: Slot | None, name: str, depth: int = _DEPTH) -> None:
        value = _unwrapped(value)
        if isinstance(value, CACHED):
            if slot is not None:
                self.caches[id(slot[0]), slot[1]] = slot
            self._value(getattr(value, "__wrapped__", None), None, "")
        elif type(value) in CONTAINERS:
            self.containers[id(value)] = value
            self._named.setdefault(name, []).append(id(value))
            self._contents(value, name, depth)
        elif id(value) in self._seen or isinstance(value, nn.Module | torch.Tensor):
            return
        elif isinstance(value, types.FunctionType):
            self._seen.add(id(value))
            self._alive.append(value)
            if not _is_foreign(value.__module__):
                self._waiting.append(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            if not _is_foreign(value.__name__):
                self._modules[id(value)] = value
        elif depth and type(value) in _WEAK:
            self._value(value.data, None, name, depth - 1)
        elif depth and not _is_foreign(type(value).__module__):
            self._seen.add(id(value))
            self._alive.append(value)
            self._class(type(value))
            for inner, held in list(getattr(value, "__dict__", {}).items()):
                self._value(held, (value.__dict__, inner), inner, depth - 1)

    def _contents(self, value: Any, name: str, depth: int) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(items) if depth else ():
            if callable(item) or type(item) in CONTAINERS or hasattr(item, "__dict__"):
                slot = None if isinstance(value, set) else (value, key)
                self._value(item, slot, name, depth - 1)

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            if base in self.classes or _is_foreign(base.__module__):
                continue
            self.classes[base] = None
            if not issubclass(base, nn.Module):
                self._names.update(name for name in vars(base) if name.startswith("__"))


_KEPT = 8  # results, for classes that are traced again
_kept: dict[frozenset[Any], Reach] = {}


def reach_of(model: nn.Module) -> Reach:
    """What a run of ``model``, a copy, can reach. Its own objects are not looked into."""
    roots: set[Any] = {type(module) for module in model.modules()}
    for module in model.modules():
        for value in attribute_values(module):
            for item in reached(value):
                function = _unwrapped(item)
                if not isinstance(function, types.FunctionType | CACHED):
                    roots.add(type(item))
                elif not _is_foreign(function.__module__):
                    roots.add(function)
    if any(getattr(root, "__closure__", None) for root in roots):
        return Reach(roots)  # a copy's own
    key = frozenset(roots)
    found = _kept.pop(key, None)
    if found is None or not found.is_current():
        found = Reach(roots)
    _kept[key] = found
    while len(_kept) > _KEPT:
        del _kept[next(iter(_kept))]
    return found


def _imported(name: str, variables: dict[str, Any]) -> str:
    """The name of the module that a function would import by ``name``."""
    inside = f"{variables.get('__package__')}.{name}"
    return inside if inside in sys.modules else name


def _is_module(kind: type) -> bool:
    return issubclass(kind, nn.Module)


def _layers(function: Any) -> Iterator[types.FunctionType]:
    """A function, and those that it is wrapped around."""
    while function is not None:
        if isinstance(function, types.FunctionType):
            yield function
        function = getattr(function, "__wrapped__", None)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def stored_attributes(code: types.CodeType) -> set[str]:
    """The names of attributes that a function, or one inside it, stores."""
    found: set[str] = set()
    if _STORE_ATTRIBUTE in code.co_code[::2]:
        steps = dis.get_instructions(code)
        found |= {step.argval for step in steps if step.opname == "STORE_ATTR"}
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            found |= stored_attributes(part)
    return found


def vars_of(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else vars(holder)


def _unwrapped(value: Any) -> Any:
    """The function behind a descriptor or an application of it."""
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return _unwrapped(value.__func__)
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property | functools.partial):
        return _unwrapped(value.func)
    return value


def _is_foreign(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _FOREIGN
