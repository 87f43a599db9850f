"""Structural attributes: set the attribute changes of a plan on a module tree.

This is the one place where the content of a file acts on live objects. Changes are limited to plain
data held under a public name by a module, or by a plain-data object of a module. The new value must
have the type of the old one. Every change is checked before any is set.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from planc.errors import MalformedFile, StalePlan
from planc.ir.plain import as_tuples, in_containers_of, same_types
from planc.modules.held import is_data
from planc.plan.plan import AttributeChange, is_public

_SCALARS = (int, float, bool, str, type(None))
_SEQUENCES = (tuple, list, torch.Size)
_ABSENT = object()


Resized = Callable[[Any, Any], bool]


def _never(before: Any, after: Any) -> bool:
    return False


def set_attributes(
    model: nn.Module, changes: Iterable[AttributeChange], resized: Resized = _never
) -> None:
    """Set the new values of structural attributes of ``model`` in place: all of them or none.

    No code of the model's class runs, because values are exchanged in the module's own dictionary.
    A list stays a list and a ``torch.Size`` stays one, although plans hold tuples. Sequences keep
    their length, unless ``resized(before, after)`` allows another one.

    Raises:
        MalformedFile: a forbidden change: a private name, a property, a tensor, a submodule, a
            change of type, or one attribute twice.
        StalePlan: the module or attribute is missing, or does not have the value ``before``.
    """
    modules = dict(model.named_modules())
    checked: dict[tuple[str, str], tuple[Any, str, Any]] = {}
    for change in changes:
        if type(change.module) is not str or change.module not in modules:
            raise StalePlan(
                f"{change}: the model has no module {change.module!r}; make a plan for this model"
            )
        holder, name = _holder(modules[change.module], change)
        value = _new_value(holder, name, change, resized)
        if (change.module, change.name) in checked:
            raise MalformedFile(f"{change}: the attribute is changed twice; make the plan again")
        checked[change.module, change.name] = (holder, name, value)
    before = [(vars(holder).get(name), value) for holder, name, value in checked.values()]
    for holder, name, value in checked.values():
        if value is _ABSENT:
            del vars(holder)[name]
        else:
            vars(holder)[name] = value
    _share(model, {id(old): value for old, value in before if type(old) is list})


def _share(model: nn.Module, renewed: dict[int, list[Any]]) -> None:
    """Restore the sharing of lists between modules."""
    for module in model.modules() if renewed else ():
        for name, value in vars(module).items():
            if type(value) is list and id(value) in renewed:
                vars(module)[name] = renewed[id(value)]


def inside(path: str, changes: Iterable[AttributeChange]) -> list[AttributeChange]:
    """Return the changes at or below the module ``path``, with paths relative to it."""
    return [
        AttributeChange(change.module[len(path) + 1 :], change.name, change.before, change.after)
        for change in changes
        if change.module == path or change.module.startswith(f"{path}.")
    ]


def _holder(module: nn.Module, change: AttributeChange) -> tuple[Any, str]:
    """Return the owner of the attribute, a module or a plain-data object inside it, and the
    attribute's name there.
    """
    if type(change.name) is not str or not is_public(change.name):
        raise MalformedFile(f"{change}: {change.name!r} is not a public attribute name")
    *outer, name = change.name.split(".")
    holder: Any = module
    for part in outer:
        if isinstance(holder, nn.Module):
            _check_is_no_part(holder, part, change)
        if part not in vars(holder):
            raise StalePlan(
                f"{change}: this {type(holder).__name__} holds no {part!r} of its own; "
                "make a plan for this model"
            )
        holder = vars(holder)[part]
        if not is_data(holder):
            raise MalformedFile(
                f"{change}: {part!r} is a {type(holder).__name__}, not an object of plain data"
            )
    return holder, name


def _new_value(holder: Any, name: str, change: AttributeChange, resized: Resized) -> Any:
    if change.before is None and change.adds_field:
        return _added(holder, name, change)
    _check_name(holder, name, change)
    if not (is_plain(change.before) and is_plain(change.after)):
        raise MalformedFile(
            f"{change}: attributes are numbers, booleans, strings, None and nested tuples of them"
        )
    same = same_types(change.before, change.after) or change.adds_field
    if not same and not resized(change.before, change.after):
        raise MalformedFile(
            f"{change}: the type would change from {_type_text(change.before)} to "
            f"{_type_text(change.after)}; an attribute keeps its type"
        )
    current = vars(holder)[name]
    if not is_plain(current):
        raise MalformedFile(
            f"{change}: the attribute holds a {type(current).__name__}, not plain data; "
            "only plain data can be changed"
        )
    if not same_types(current, change.before) or as_tuples(current) != as_tuples(change.before):
        raise StalePlan(
            f"{change}: the attribute is {current!r} ({_type_text(current)}), not "
            f"{change.before!r} ({_type_text(change.before)}); make a plan for this model"
        )
    if change.adds_field:
        return None if _defaults_to_none(type(holder), name) else _ABSENT
    return in_containers_of(current, change.after)


def _added(holder: Any, name: str, change: AttributeChange) -> Any:
    """The value of a field added to an object of plain data."""
    _check_class(holder, name, change)
    current = vars(holder).get(name)
    if current is not None:
        raise StalePlan(
            f"{change}: the attribute is {current!r}, where the plan adds it; make a plan for this "
            "model"
        )
    return change.after


def _defaults_to_none(kind: type, name: str) -> bool:
    """True if objects of a class hold the name as None unless another value is given."""
    return hasattr(kind, name) or name in inspect.signature(kind).parameters


def _check_name(holder: Any, name: str, change: AttributeChange) -> None:
    kind = type(holder).__name__
    if isinstance(holder, nn.Module):
        _check_is_no_part(holder, name, change)
    _check_class(holder, name, change)
    if name not in vars(holder):
        raise StalePlan(
            f"{change}: this {kind} holds no attribute {name!r} of its own; "
            "make a plan for this model"
        )


def _check_class(holder: Any, name: str, change: AttributeChange) -> None:
    for base in type(holder).__mro__:
        # a class may hold a default overridden by the module, but nothing acting on access
        if name in vars(base) and not is_plain(vars(base)[name]):
            defined = type(vars(base)[name]).__name__
            raise MalformedFile(
                f"{change}: {name!r} is a {defined} of the class {type(holder).__name__}"
            )


def _check_is_no_part(module: nn.Module, name: str, change: AttributeChange) -> None:
    if name == "training" or hasattr(nn.Module, name):
        raise MalformedFile(f"{change}: {name!r} belongs to nn.Module itself")
    for owned, what in (
        (module._parameters, "a parameter"),
        (module._buffers, "a buffer"),
        (module._modules, "a submodule"),
    ):
        if name in owned:
            raise MalformedFile(f"{change}: {name!r} is {what}, not a structural attribute")


def is_plain(value: Any) -> bool:
    """Return True if ``value`` is a number, boolean, string, None or a nested sequence of them.

    Subclasses are excluded: they may act when compared.
    """
    if type(value) in _SEQUENCES:
        return all(is_plain(item) for item in value)
    return type(value) in _SCALARS


def _type_text(value: Any) -> str:
    if type(value) in _SEQUENCES:
        return f"tuple[{', '.join(map(_type_text, value))}]"
    return type(value).__name__
