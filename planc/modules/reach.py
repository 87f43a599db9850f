"""Code reachable by name from a run of a model: functions, classes and objects of Python modules.

Torch, NumPy, pytest and the standard library are not searched.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import importlib.util
import operator
import sys
import threading
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn

from planc.modules.closures import (
    CACHED,
    attribute_values,
    code_objects,
    default_values,
    filled_cells,
    reached,
)

_LIBRARIES = {"torch", "torchgen", "functorch", "numpy", "scipy", "sympy", "planc", "__builtin__"}
_LIBRARIES |= {"pytest", "_pytest"}  # read by asserts that pytest rewrites
_FOREIGN = sys.stdlib_module_names | _LIBRARIES
CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_WEAK = (WeakKeyDictionary, WeakValueDictionary)
_WRITING = frozenset({"setdefault", "update", "append", "add", "extend", "__setitem__"})
_STORE_ITEM, _STORE_ATTRIBUTE = dis.opmap["STORE_SUBSCR"], dis.opmap["STORE_ATTR"]
_IMPORT = dis.opmap["IMPORT_NAME"]
_UNSEEN = frozenset({"EXTENDED_ARG", "CACHE", "PRECALL"})
_SUBCLASSING = frozenset({"__init_subclass__", "__class_getitem__", "__set_name__"})
_BUILDING = _SUBCLASSING | {"__init__", "__new__", "__setstate__", "__del__"}
_DEPTH = 3  # levels of nested containers and objects

one_at_a_time = threading.RLock()  # traces change objects of the whole process
Slot = tuple[Any, Any]  # a dictionary, list, class or cell, and the place in it


class Reach:
    """Everything reachable from the names in the forward methods of some classes and in some
    functions.

    ``caches`` has the locations of functions under ``functools.lru_cache``; ``containers`` the
    dictionaries, lists and sets outliving a run; ``variables`` the global variables; ``classes``
    the classes; ``stores`` the attributes stored by methods of modules; ``filled`` the names
    occurring in code with writes to containers.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self.caches: dict[tuple[int, Any], Slot] = {}
        self.containers: dict[int, Any] = {}
        self.variables: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
        self.classes: dict[type, None] = {}
        self.stores: dict[type, set[str]] = {}
        self.filled: set[str] = set()
        self._named: dict[str, list[int]] = {}  # containers by the names of their variables
        self._names: set[str] = {"forward"}
        self._modules: dict[int, types.ModuleType] = {}
        self._seen: set[int] = set()
        self._absent: set[str] = set()  # names in code with no module yet
        self._waiting: list[types.FunctionType] = []
        self._alive: list[Any] = []
        self._read: dict[int, tuple[Any, dict[str, Any]]] = {}  # holders, with what was read there
        found = set(roots)
        for root in found:
            self._value(root, None, "")
        self._close()
        bases = {base for root in found if isinstance(root, type) for base in root.__mro__}
        kinds = [base for base in bases & self.classes.keys() if issubclass(base, nn.Module)]
        self._note_stores(kinds)

    @property
    def written(self) -> Iterator[Any]:
        """The containers possibly written to: their variable's name occurs in writing code."""
        found = {i for name in self.filled & self._named.keys() for i in self._named[name]}
        return (self.containers[i] for i in found)

    def is_current(self) -> bool:
        """True if all names still refer to the same objects."""
        return self._absent.isdisjoint(sys.modules) and all(
            all(map(operator.is_, map(vars_of(holder).get, read), read.values()))
            for holder, read in self._read.values()
        )

    def _note(self, holder: Any, name: str, value: Any) -> None:
        self._read.setdefault(id(holder), (holder, {}))[1][name] = value

    def _close(self) -> None:
        """Follow names until nothing new is found."""
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
                    if not _is_special(name):  # these are followed with their class
                        self._attribute(holder, name)

    def _attribute(self, holder: Any, name: str) -> None:
        value = vars(holder)[name]
        self._note(holder, name, value)
        self._value(value, (holder, name), name)

    def _note_stores(self, kinds: list[type]) -> None:
        """Note the attributes stored by methods of modules reached, by name, from forward."""
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
                    names.update(name for part in code_objects(code) for name in part.co_names)
                    self.stores.setdefault(kind, set()).update(stored_attributes(code))

    def _function(self, function: types.FunctionType) -> None:
        variables = function.__globals__
        for name in self._code(function):
            if name in variables:
                self.variables[id(variables), name] = (variables, name)
                self._note(variables, name, variables[name])
                self._value(variables[name], (variables, name), name)
        for module in _imported(function):
            if module in sys.modules:
                self._value(sys.modules[module], None, module)
            else:
                self._absent.add(module)
        for _, cell in filled_cells(function):
            self._value(cell.cell_contents, (cell, None), "")
        for value in default_values(function):
            self._value(value, None, "")
        if isinstance(wrapped := getattr(function, "__wrapped__", None), types.FunctionType):
            self._value(wrapped, None, "")

    def _code(self, function: types.FunctionType) -> Iterator[str]:
        for code in code_objects(function.__code__):
            self._names.update(code.co_names)
            if _STORE_ITEM in code.co_code[::2] or not _WRITING.isdisjoint(code.co_names):
                self.filled.update(code.co_names)
            yield from code.co_names

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
        """Follow the special methods of a class; the constructors of modules have run already."""
        built = _BUILDING if issubclass(kind, nn.Module) else _SUBCLASSING
        for base in kind.__mro__:
            if base in self.classes or _is_foreign(base.__module__):
                continue
            self.classes[base] = None
            for name in [name for name in vars(base) if _is_special(name) and name not in built]:
                self._attribute(base, name)


_KEPT = 8  # results, for repeated traces of the same classes
_kept: dict[frozenset[Any], Reach] = {}


def reach_of(model: nn.Module) -> Reach:
    """The reach of a run of ``model``, a copy; the model's own objects are not searched."""
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
        return Reach(roots)  # functions of this copy alone
    key = frozenset(roots)
    found = _kept.pop(key, None)
    if found is None or not found.is_current():
        found = Reach(roots)
    _kept[key] = found
    while len(_kept) > _KEPT:
        del _kept[next(iter(_kept))]
    return found


def _imported(function: types.FunctionType) -> Iterator[str]:
    """The names of the modules imported by a function when it runs."""
    package = function.__globals__.get("__package__") or ""
    for code in code_objects(function.__code__):
        for level, name, inner in _imports(code) if _IMPORT in code.co_code[::2] else ():
            with contextlib.suppress(ImportError):  # beyond the topmost package
                module = importlib.util.resolve_name("." * level + name, package)
                yield module
                yield from (f"{module}.{part}" for part in inner)


@functools.lru_cache(4096)
def _imports(code: types.CodeType) -> list[tuple[int, str, tuple[str, ...]]]:
    """The level, the module and the names of each import statement."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _UNSEEN]
    return [
        (steps[i - 2].argval, step.argval, steps[i - 1].argval or ())
        for i, step in enumerate(steps)
        if step.opname == "IMPORT_NAME"
    ]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _layers(function: Any) -> Iterator[types.FunctionType]:
    """A function and the functions wrapped by it."""
    while function is not None:
        if isinstance(function, types.FunctionType):
            yield function
        function = getattr(function, "__wrapped__", None)


def stored_attributes(code: types.CodeType) -> set[str]:
    """The names of attributes stored by a function or by one inside it."""
    return {
        step.argval
        for part in code_objects(code)
        if _STORE_ATTRIBUTE in part.co_code[::2]
        for step in dis.get_instructions(part)
        if step.opname == "STORE_ATTR"
    }


def vars_of(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else vars(holder)


def _unwrapped(value: Any) -> Any:
    """The function behind a descriptor or a partial application."""
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return _unwrapped(value.__func__)
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property | functools.partial):
        return _unwrapped(value.func)
    return value


def _is_foreign(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _FOREIGN
