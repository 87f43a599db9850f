"""Which number of an operator is which of the Python call around it.

In: the arguments of an operator, and the numbers of the call, some of which say where they came
from. Out: the arguments with those numbers in their places.
"""

from __future__ import annotations

from typing import Any

from planc.ir.expressions import Apply, Number, Scalar, Size, expr_of
from planc.trace.indexing import Pieces, taken
from planc.trace.sizes import TrackedSize


def with_provenance(
    op: str,
    args: tuple[Any, ...],
    kwargs: tuple[Any, ...],
    numbers: list[Number],
    pieces: Pieces,
) -> tuple[Any, Any]:
    """The arguments of an operator, its numbers replaced by those of the call that have one; of an
    indexing, by its next of the ``pieces``.
    """
    skip = 1 if op.startswith(("aten.slice", "aten.select", "aten.unbind")) else 0
    flat: list[Number] = []

    def gather(item: Any) -> None:
        if isinstance(item, tuple):
            for inner in item:
                gather(inner)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            flat.append(item)

    gather(args)
    gather(kwargs)
    rest = flat[skip:]
    piece = taken(pieces, rest) if skip and pieces else None
    matched = iter(flat[:skip] + (piece or align(numbers, rest, piece=skip > 0)))

    def rebuild(item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(rebuild(inner) for inner in item)
        if isinstance(item, int | float) and not isinstance(item, bool):
            number = next(matched)
            if isinstance(number, Size):
                return Size(int(item), number.expr)
            if isinstance(number, Scalar):
                return Scalar(float(item), number.expr)
        return item

    return rebuild(args), rebuild(kwargs)


def align(numbers: list[Number], calls: list[Number], piece: bool = False) -> list[Number]:
    """``calls`` (the numbers an operator got) with the provenance of ``numbers`` (those of the
    Python call around it): equal runs at both ends are matched, the rest in order by value. Where
    that leaves a choice (``x[:, :4, self.width]`` is two operators, each of them a ``piece`` of the
    call), all of the choice must agree.
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
    """A number of an operator that may be any of those of the call with the same value."""
    exprs = tuple(dict.fromkeys(expr_of(n) for n in numbers if n == number))
    if len(exprs) < 2 or not isinstance(number, int):
        return number
    return TrackedSize(int(number), Apply("same", exprs))


def computed_with(
    func: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arguments of an operator on floating-point numbers, with sizes that it computes with, as
    ``y / y.shape[-1]`` does, as the numbers that they are to it.
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
