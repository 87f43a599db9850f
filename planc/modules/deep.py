"""Deep copies of module trees: equal to those of ``copy.deepcopy``, with less work per module.

Modules copied by Python's default protocol, and their plain containers, are copied directly; all
other objects by ``copy.deepcopy``, with the same memo.
"""

from __future__ import annotations

import copy
import copyreg
import types
from collections import OrderedDict
from typing import Any

from torch import nn

Memo = dict[int, Any]
_ATOMIC = frozenset(
    {int, float, bool, complex, str, bytes, type(None), type, types.FunctionType, type(len)}
)
_PROTOCOL = ("__reduce_ex__", "__reduce__")
_MISSING: Any = object()


def deep_copy(value: Any, memo: Memo) -> Any:
    """The copy of ``value`` that ``copy.deepcopy(value, memo)`` makes."""
    kind = type(value)
    if kind in _ATOMIC:
        return value
    found = memo.get(id(value), _MISSING)
    if found is not _MISSING:
        return found
    if kind is dict or (kind is OrderedDict and not vars(value)):
        return _mapping(value, memo)
    if kind is list:
        items: list[Any] = []
        memo[id(value)] = items
        items.extend(deep_copy(item, memo) for item in value)
        return items
    if isinstance(value, nn.Module) and (state := _default_state(value)) is not None:
        return _module(value, state, memo)
    return copy.deepcopy(value, memo)


def _mapping(value: dict[Any, Any], memo: Memo) -> dict[Any, Any]:
    found = memo[id(value)] = type(value)()
    for key, item in value.items():
        found[deep_copy(key, memo)] = deep_copy(item, memo)
    return found


def _default_state(module: nn.Module) -> dict[str, Any] | None:
    """The state by which Python's default protocol copies a module; None if its class or one of its
    attributes asks for another way.
    """
    kind = type(module)
    own = any(getattr(kind, name) is not getattr(object, name) for name in _PROTOCOL)
    if own or kind in copyreg.dispatch_table or getattr(module, "__deepcopy__", None) is not None:
        return None
    reduced: Any = module.__reduce_ex__(4)
    made, args, state, *items = reduced
    default = made is copyreg.__newobj__ and args == (kind,)  # type: ignore[attr-defined]
    return state if default and type(state) is dict and not any(items) else None


def _module(module: nn.Module, state: dict[str, Any], memo: Memo) -> nn.Module:
    new: Any = type(module).__new__(type(module))
    memo[id(module)] = new
    new.__setstate__({name: deep_copy(value, memo) for name, value in state.items()})
    copied: nn.Module = new
    return copied
