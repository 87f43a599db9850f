"""Matching of an operator's numbers with the numbers of the Python call around it.

Numbers of the call may carry provenance; the matched arguments of the operator inherit it.
"""

from __future__ import annotations

from typing import Any

from planc.ir.expressions import Apply, Number, Scalar, Size, expr_of
from planc.modules.nesting import leaves, map_leaves
from planc.trace.indexing import Pieces, taken
from planc.trace.numbers import TrackedSize


def with_provenance(
    op: str,
    args: tuple[Any, ...],
    kwargs: tuple[Any, ...],
    numbers: list[Number],
    pieces: Pieces,
) -> tuple[Any, Any]:
    """The arguments of an operator, with provenance for each number found in the call.

    An operator of an indexing consumes the next of ``pieces``.
    """
    skip = 1 if op.startswith(("aten.slice", "aten.select", "aten.unbind")) else 0
    flat: list[Number] = [leaf for leaf in leaves((args, kwargs)) if _is_number(leaf)]
    rest = flat[skip:]
    piece = taken(pieces, rest) if skip and pieces else None
    matched = iter(flat[:skip] + (piece or align(numbers, rest, piece=skip > 0)))

    def with_expr(leaf: Any) -> Any:
        number = next(matched) if _is_number(leaf) else None
        if isinstance(number, Size):
            return Size(int(leaf), number.expr)
        return Scalar(float(leaf), number.expr) if isinstance(number, Scalar) else leaf

    renewed: tuple[Any, Any] = map_leaves(with_expr, (args, kwargs))
    return renewed


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def align(numbers: list[Number], calls: list[Number], piece: bool = False) -> list[Number]:
    """``calls`` (the numbers of an operator) with the provenance of ``numbers`` (those of the
    Python call around it).

    Equal runs at both ends are matched first, the rest in order by value. An ambiguous match
    requires all candidates to agree: ``x[:, :4, self.width]`` is two operators, each one a
    ``piece`` of the call.
    """
    if not piece and numbers[: len(calls)] == calls:
        return numbers[: len(calls)]
    matched = list(calls)
    low = 0
    while low < min(len(numbers), len(calls)) and numbers[low] == calls[low]:
        matched[low] = numbers[low]
        low += 1
    high = 0
    while high < min(len(numbers), len(calls)) - low and numbers[-1 - high] == calls[-1 - high]:
        matched[-1 - high] = numbers[-1 - high]
        high += 1
    at = low
    for number in numbers[low : len(numbers) - high]:
        for i in range(at, len(calls) - high):
            if calls[i] == number:
                matched[i] = number
                at = i + 1
                break
    return [_agreed(number, numbers) for number in matched]


def _agreed(number: Number, numbers: list[Number]) -> Number:
    """A number of an operator, tied to all equal numbers of the call."""
    exprs = tuple(dict.fromkeys(expr_of(n) for n in numbers if n == number))
    if len(exprs) < 2 or not isinstance(number, int):
        return number
    return TrackedSize(int(number), Apply("same", exprs))


def computed_with(
    func: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arguments of a floating-point operator, with sizes used in arithmetic as scalars.

    ``y / y.shape[-1]`` is an example.
    """

    def number(argument: Any, declared: Any) -> Any:
        if isinstance(argument, Size) and str(declared.type) in _NUMBERS:
            return Scalar(float(argument), argument.expr)
        return argument

    declared = func._schema.arguments
    named = {argument.name: argument for argument in declared}
    return (
        tuple(number(a, d) for a, d in zip(args, declared, strict=False)),
        tuple((name, number(a, named[name])) for name, a in kwargs),
    )


_NUMBERS = frozenset({"Tensor", "Optional[Tensor]", "number", "Optional[number]"})
