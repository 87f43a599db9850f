"""Operands of contractions: the arguments that are multiplied, and a letter for each dimension.

One table for every question asked of an operator that multiplies an input with a weight.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

Letters = tuple[list[str], str]
"""The letters of each operand, and of the result."""


@dataclass(frozen=True, slots=True)
class Contraction:
    """The positions of an operator's input, weight and bias (None without one) among its arguments.

    ``letters`` are those of the weight's matrix: ``oi`` for [out, in], ``io`` for [in, out]. A
    ``convolution`` has these two dimensions in front of its kernel's.
    """

    x: int
    weight: int
    bias: int | None
    letters: str
    convolution: bool = False

    @property
    def transposed(self) -> bool:
        """True if the weight is [in, out, ...]."""
        return self.letters == "io"


_CONTRACTIONS = {
    "linear": Contraction(0, 1, 2, "oi"),
    **{f"conv{d}d": Contraction(0, 1, 2, "oi", True) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": Contraction(0, 1, 2, "io", True) for d in (1, 2, 3)},
    **dict.fromkeys(("matmul", "mm", "bmm"), Contraction(0, 1, None, "io")),
    **dict.fromkeys(("addmm", "baddbmm"), Contraction(1, 2, 0, "io")),
}
CONVOLUTIONS = tuple(name for name, found in _CONTRACTIONS.items() if found.convolution)


def contraction(operator: str) -> Contraction | None:
    """The operands of a contraction, ``aten.linear.default`` or alike; None for other operators."""
    space, name, *_ = operator.split(".")
    return _CONTRACTIONS.get(name.removesuffix("_")) if space == "aten" else None


def matrix_letters(left: int, right: int) -> Letters:
    """The letters of torch.matmul for operands of these ranks: ``J`` is summed over."""
    batch = string.ascii_lowercase[: max(left, right, 2) - 2]
    a = "J" if left == 1 else batch[len(batch) + 2 - left :] + "IJ"
    b = "J" if right == 1 else batch[len(batch) + 2 - right :] + "JK"
    return [a, b], batch + "I" * (left > 1) + "K" * (right > 1)


def einsum_letters(equation: str, ranks: Sequence[int]) -> Letters:
    """The letters of an einsum for operands of these ranks; an ellipsis becomes unused letters."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    spare = [c for c in string.ascii_letters if c not in equation]
    missing = [
        rank - len(dims.replace("...", "")) if "..." in dims else 0
        for dims, rank in zip(inputs, ranks, strict=True)
    ]
    ellipsis = "".join(spare[: max(missing)])
    result = [
        dims.replace("...", ellipsis[len(ellipsis) - count :])
        for dims, count in zip(inputs, missing, strict=True)
    ]
    if arrow:
        return result, output.replace("...", ellipsis)
    given = left.replace("...", "").replace(",", "")
    return result, ellipsis + "".join(sorted(c for c in set(given) if given.count(c) == 1))
