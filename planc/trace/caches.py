"""State outliving a run of a model: function caches, module globals and class attributes.

A trace leaves nothing behind there, and does not reuse numbers or tensors of earlier runs.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from planc.ir.expressions import Scalar, Size
from planc.modules.closures import CACHED, inner_tensors
from planc.modules.forgetting import Forgetting
from planc.modules.reach import Reach, vars_of

_MISSING = object()


@contextmanager
def caches_apart(reach: Reach, forgetting: Forgetting) -> Iterator[None]:
    """Context in which code reachable by a model runs without leaving a trace in caches and without
    seeing the state to be forgotten.

    Other threads running a model meanwhile see these caches empty.
    """
    with ExitStack() as stack:
        stack.callback(_restoring_variables(reach))
        stack.callback(_restoring_containers(reach))
        stack.enter_context(_seen_through(reach))
        forgetting.hide(reach)
        yield


# -- functools.lru_cache -----------------------------------------------------------------------


@contextmanager
def _seen_through(reach: Reach) -> Iterator[None]:
    """Replace cached functions by versions recomputing for traced arguments."""
    through: dict[int, tuple[Any, Callable[..., Any]]] = {}
    holding_results: list[Any] = []
    replaced: list[tuple[Any, Any, Any]] = []
    for holder, place in reach.caches.values():
        old = _get(holder, place)
        if isinstance(cached := _within(old), CACHED):
            if id(cached) not in through:
                through[id(cached)] = (cached, _through(cached, holding_results))
            replaced.append((holder, place, old))
            _set(holder, place, _around(old, through[id(cached)][1]))
    try:
        yield
    finally:
        for holder, place, old in replaced:
            _set(holder, place, old)
        for cached in holding_results:
            cached.cache_clear()


def _through(cached: Any, holding_results: list[Any]) -> Callable[..., Any]:
    """``cached``, bypassed for sizes and tensors and for results holding tensors.

    Caches with results of the trace are added to ``holding_results``.
    """

    @functools.wraps(cached)
    def through(*args: Any, **kwargs: Any) -> Any:
        if _is_traced((args, kwargs)):
            return cached.__wrapped__(*args, **kwargs)
        before = cached.cache_info().misses
        result = cached(*args, **kwargs)
        if isinstance(result, nn.Module) or not _is_traced(result):
            return result
        if cached.cache_info().misses > before:
            holding_results.append(cached)
            return result
        return cached.__wrapped__(*args, **kwargs)

    return through


def _is_traced(value: Any) -> bool:
    """True if ``value`` contains a tracked number, a tensor or a module."""
    if isinstance(value, tuple | list):
        return any(map(_is_traced, value))
    if isinstance(value, dict):
        return any(map(_is_traced, value.values()))
    if isinstance(value, Size | Scalar | torch.Tensor | nn.Module):
        return True
    return hasattr(value, "__dict__") and any(True for _ in inner_tensors(value))


def _within(value: Any) -> Any:
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _around(old: Any, function: Callable[..., Any]) -> Any:
    return type(old)(function) if isinstance(old, staticmethod | classmethod) else function


def _get(holder: Any, place: Any) -> Any:
    if isinstance(holder, types.CellType):
        return holder.cell_contents
    if isinstance(holder, type | types.ModuleType):
        return vars(holder).get(place)
    return holder[place]


def _set(holder: Any, place: Any, value: Any) -> None:
    if isinstance(holder, types.CellType):
        holder.cell_contents = value
    elif isinstance(holder, type | types.ModuleType):
        setattr(holder, place, value)
    else:
        holder[place] = value


# -- containers, variables, attributes of classes ----------------------------------------------


def _restoring_containers(reach: Reach) -> Callable[[], None]:
    """Snapshot the contents of containers; the returned function restores them."""
    before = [(held, _items(held)) for held in reach.containers.values()]

    def restore() -> None:
        for held, items in before:
            now = _items(held)
            if len(now) != len(items) or any(map(_differ, now, items)):
                _fill(held, items)

    return restore


def _items(held: Any) -> list[Any]:
    return list(held.items()) if isinstance(held, dict) else list(held)


def _differ(left: Any, right: Any) -> bool:
    if type(left) is type(right) is tuple and len(left) == len(right) == 2:
        return left[0] is not right[0] or left[1] is not right[1]
    return left is not right


def _fill(held: Any, items: list[Any]) -> None:
    held.clear()
    if isinstance(held, dict | set):
        held.update(items)
    else:
        held.extend(items)


def _restoring_variables(reach: Reach) -> Callable[[], None]:
    """Snapshot global variables and class attributes; the returned function restores them."""
    variables = {id(holder): holder for holder, _ in reach.variables.values()}
    before = [(h, dict(vars_of(h))) for h in (*variables.values(), *reach.classes)]

    def restore() -> None:
        for holder, old in before:
            now = vars_of(holder)
            if len(now) != len(old) or any(map(operator.is_not, now.values(), old.values())):
                _set_again(holder, old)

    return restore


def _set_again(holder: Any, old: dict[str, Any]) -> None:
    """Restore changed values only; functions, modules and classes are loaded, not computed."""
    for name in [*vars_of(holder)]:
        value, was = vars_of(holder)[name], old.get(name, _MISSING)
        if value is was or isinstance(value, types.FunctionType | types.ModuleType | type):
            continue
        if isinstance(holder, type):
            delattr(holder, name) if was is _MISSING else setattr(holder, name, was)
        elif was is _MISSING:
            del holder[name]
        else:
            holder[name] = was
