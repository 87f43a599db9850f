"""The registry of rules: the effect of each operator on the labels of its operands.

A rule is a function ``rule(facts, ...)`` with the operator's own parameters after the
:class:`Facts` it writes to. Tensors arrive as :class:`Labelled`, numbers unchanged; it returns the
labelled result, a tuple of them, or None for operators without a result. Parameters that must
follow a width have the name given by the operator's schema.

A module class may have a rule as well: its modules are then leaves, called but not traced into.
Their rule gets the arguments of ``forward``, and by keyword the parameters, buffers and integer
attributes of the module named in its signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, TypeVar

from planc.errors import AnalysisError
from planc.ir.graph import writes_out
from planc.rules.labels import Labelled
from planc.rules.labels.facts import Facts

Rule = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)
_RULES: dict[str, Rule] = {}
_BUILTIN: set[Rule] = set()
LEAF = "leaf."


@dataclass(frozen=True, slots=True)
class Leaf:
    """A module class that is not traced into: its operator name, and the function computing its
    result's shape.
    """

    operator: str
    meta: Callable[..., Any] | None


_LEAVES: dict[type, Leaf] = {}


def rule(
    *operators: str | type, meta: Callable[..., Any] | None = None
) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for operators and for module classes.

    An operator is named ``namespace.name.overload``, or ``namespace.name`` for all overloads; its
    in-place variant (``add_``) has the same rule. A module class stands for all its modules, and
    for those of subclasses with the same ``forward``: they are called, never traced into. Its rule
    is called with the arguments of ``forward``, and by keyword with the module's parameters and
    buffers (``"gate.weight"`` is ``gate_weight``) and its public integer attributes, as far as its
    signature names them. Unnamed tensors of the module stay whole; ``facts.demand(name, None, y,
    dim)`` makes an attribute follow a width.

    Args:
        operators: names of operators, and module classes.
        meta: for module classes, ``meta(module, *args, **kwargs)``: an empty tensor (or a tuple of
            them) like the result of ``forward``, for arguments without content. Without it the
            model is traced on real tensors.

    Returns:
        A decorator that registers a function and returns it unchanged.
    """

    def register(fn: AnyRule) -> AnyRule:
        for operator in operators:
            if isinstance(operator, str):
                _RULES[operator] = fn
            else:
                name = f"{LEAF}{operator.__module__}.{operator.__qualname__}"
                _LEAVES[operator] = Leaf(name, meta)
                _RULES[name] = _of_leaf(fn)
        return fn

    return register


def mark_builtin() -> None:
    """Record all rules registered so far as planc's own; rules registered later are a user's."""
    _BUILTIN.update(_RULES.values())


def is_builtin(fn: Rule) -> bool:
    """True if planc itself registered the rule ``fn``."""
    return fn in _BUILTIN


def leaf(kind: type) -> Leaf | None:
    """The registration of a module class, or of the base class that defines its ``forward``."""
    for base in kind.__mro__:
        if base in _LEAVES:
            return _LEAVES[base] if _forward(kind) is _forward(base) else None
    return None


def _forward(kind: type) -> Any:
    return getattr(kind, "forward", None)


def _of_leaf(fn: Rule) -> Rule:
    """``fn``, called with the keywords it has parameters for; other tensors are pinned."""

    @wraps(fn)
    def adapted(facts: Facts, *args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs[name] for name in _named(fn, kwargs)}
        for name, value in kwargs.items():
            if name not in given and isinstance(value, Labelled):
                facts.pin(value.layers, f"{name} is not named by its module's rule")
        try:
            inspect.signature(fn).bind(facts, *args, **given)
        except TypeError as error:
            raise AnalysisError(
                f"rule {fn.__name__}: {error}; beside the arguments of forward it can name "
                f"{', '.join(kwargs) or 'nothing'}"
            ) from None
        return fn(facts, *args, **given)

    return adapted


def named_by(operator: str, given: Iterable[str]) -> tuple[str, ...]:
    """The names among ``given`` with a parameter in the rule of a module class."""
    return _named(_RULES[operator], given)


def _named(fn: Rule, given: Iterable[str]) -> tuple[str, ...]:
    named = inspect.signature(fn).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in named.values())
    return tuple(name for name in given if takes_all or name in named)


def find(operator: str) -> Rule | None:
    """The rule for an operator: the exact overload's, else the operator's, else its out-of-place
    variant's; None if there is none. An overload that writes into ``out`` has the rule of the one
    that returns its result, followed by a copy.
    """
    if operator in _RULES:
        return _RULES[operator]
    name = operator.rsplit(".", 1)[0]
    overload = operator[len(name) :]
    if writes_out(operator):
        plain = overload.removesuffix("out").rstrip("._")
        found = (find(f"{name}{o}") for o in (plain, *_PLAIN) if o)
        fn = next((fn for fn in found if fn is not None), None)
        return None if fn is None else _into_out(fn)
    for candidate in (name, name.removesuffix("_") + overload, name.removesuffix("_")):
        if candidate in _RULES:
            return _RULES[candidate]
    return None


_PLAIN = (".default", ".Tensor", ".self")
"""Overloads that return what the overload ``out`` writes."""


@cache
def _into_out(fn: Rule) -> Rule:
    """``fn``, with its result copied into the argument ``out``."""

    @wraps(fn)
    def written(facts: Facts, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        y = fn(facts, *args, **kwargs)
        if not (isinstance(out, Labelled) and isinstance(y, Labelled) and y.shape == out.shape):
            for value in (out, *(y if isinstance(y, tuple) else (y,))):
                if isinstance(value, Labelled):
                    facts.pin(value.layers, "written into a tensor of another shape")
            return (
                tuple(map(Labelled, facts.shapes))
                if len(facts.shapes) > 1
                else Labelled(facts.shape)
            )
        return _RULES["aten.copy"](facts, out, y)

    return written


@cache
def parameters(fn: Rule) -> tuple[str, ...]:
    """The names of a rule's parameters after the first."""
    return tuple(inspect.signature(fn).parameters)[1:]
