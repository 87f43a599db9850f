"""The registry of rules: what each operator does to the labels of its operands.

A rule is a function ``rule(cx, ...)`` with the operator's own parameters after the :class:`Facts`
it writes to. Tensors arrive as :class:`Labelled`, numbers as they are; it returns the labelled
result, a tuple of them, or None where the operator returns nothing. Parameters that must follow a
width carry the name that the operator's schema gives them.

A module class may have a rule as well: its modules are then leaves, which are called but not looked
into. Their rule gets the arguments of ``forward``, and by keyword the module's parameters, buffers
and integer attributes that it names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, TypeVar

from planc.errors import AnalysisError
from planc.rules.labels import Labelled, lift
from planc.rules.labels.facts import Facts

Rule = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)
_RULES: dict[str, Rule] = {}
LEAF = "leaf."


@dataclass(frozen=True, slots=True)
class Leaf:
    """A module class that is not traced into: the name of its operator, and the function that
    gives its result's shape.
    """

    operator: str
    meta: Callable[..., Any] | None


_LEAVES: dict[type, Leaf] = {}


def rule(
    *operators: str | type, meta: Callable[..., Any] | None = None
) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for operators and for module classes.

    An operator is named ``namespace.name.overload``, or ``namespace.name`` for all overloads; its
    in-place variant (``add_``) has the same rule. A module class stands for all its modules, and
    for those of subclasses with the same ``forward``: they are called, never looked into. Its rule
    is called with the arguments of ``forward``, and by keyword with those of the module's
    parameters and buffers (``"gate.weight"`` is ``gate_weight``), and of its public integer
    attributes, that it has parameters for. A tensor of the module that it does not name stays
    whole; an attribute that follows a width is said to by ``cx.demand(name, None, y, dim)``.

    Args:
        meta: for module classes, ``meta(module, *args, **kwargs)``: an empty tensor (or a tuple of
            them) like what ``forward`` returns, for arguments without content. Without it the model
            is traced on real tensors.
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


def leaf(kind: type) -> Leaf | None:
    """What is registered for a module class, or for the class whose ``forward`` it has."""
    for base in kind.__mro__:
        if base in _LEAVES:
            return _LEAVES[base] if _forward(kind) is _forward(base) else None
    return None


def _forward(kind: type) -> Any:
    return getattr(kind, "forward", None)


def _of_leaf(fn: Rule) -> Rule:
    """``fn``, given what it has parameters for; the tensors that it has none for are pinned."""

    @wraps(fn)
    def adapted(cx: Facts, *args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs[name] for name in _named(fn, kwargs)}
        for name, value in kwargs.items():
            if name not in given and isinstance(value, Labelled):
                cx.pin(value.layers, f"{name} is not named by its module's rule")
        try:
            inspect.signature(fn).bind(cx, *args, **given)
        except TypeError as error:
            raise AnalysisError(
                f"rule {fn.__name__}: {error}; beside the arguments of forward it can name "
                f"{', '.join(kwargs) or 'nothing'}"
            ) from None
        return fn(cx, *args, **given)

    return adapted


def named_by(operator: str, given: Iterable[str]) -> tuple[str, ...]:
    """Those of the names ``given`` that the rule of a module class has parameters for."""
    return _named(_RULES[operator], given)


def _named(fn: Rule, given: Iterable[str]) -> tuple[str, ...]:
    named = inspect.signature(fn).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in named.values())
    return tuple(name for name in given if takes_all or name in named)


def find(operator: str) -> Rule | None:
    """The rule for an operator: the exact overload's, else the operator's, else that of the
    operator it is the in-place variant of.
    """
    if operator in _RULES:
        return _RULES[operator]
    name = operator.rsplit(".", 1)[0]
    overload = operator[len(name) :]
    if overload.endswith((".out", "_out")):
        return None  # it writes into a tensor that the rule does not know
    for candidate in (name, name.removesuffix("_") + overload, name.removesuffix("_")):
        if candidate in _RULES:
            return _RULES[candidate]
    return None


@cache
def parameters(fn: Rule) -> tuple[str, ...]:
    """The names of a rule's parameters after the first."""
    return tuple(inspect.signature(fn).parameters)[1:]


# -- what many families need -----------------------------------------------------------------------


def operand(value: Any) -> Labelled:
    """A tensor operand; numbers are tensors without dimensions."""
    return value if isinstance(value, Labelled) else Labelled(())


def axis(x: Labelled, dim: int) -> int:
    """A dimension counted from the front."""
    return dim % x.rank if x.rank else 0


def axes(x: Labelled, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    """Dimensions counted from the front; all of them for None or none."""
    if dims is None or dims == ():
        return tuple(range(x.rank))
    if isinstance(dims, int):
        return (axis(x, dims),)
    return tuple(axis(x, dim) for dim in dims)


def pin_dims(cx: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    """``x`` without the layers that target ``dims``, which are pinned."""
    gone = set(dims)
    doomed = [layer for layer in x.layers if layer.target in gone]
    if not doomed:
        return x
    cx.pin(doomed, reason)
    return Labelled(x.shape, tuple(layer for layer in x.layers if layer.target not in gone))


def per_dim(value: Any, count: int) -> tuple[int, ...]:
    """One number for each of ``count`` dimensions; an operator may be given one for all."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * count if len(given) == 1 else given


def looking_along(first: int, kernel: Any, stride: Any, *paddings: Any) -> list[int]:
    """The dimensions, from ``first`` on, in which a sliding window sees more than one position, or
    not every one: elsewhere it works on each coordinate by itself.
    """
    count = len(kernel)
    steps = per_dim(stride, count) if stride else kernel
    rims = [per_dim(padding, count) for padding in paddings]
    return [
        first + i
        for i in range(count)
        if kernel[i] != 1 or steps[i] != 1 or any(rim[i] != 0 for rim in rims)
    ]


def vector(x: Labelled, dim: int, rank: int) -> Labelled:
    """A vector placed along dimension ``dim`` of ``rank`` dimensions."""
    return lift(x, [0 if d == dim else None for d in range(rank)])
