"""Contractions: sums of products over letters, as in einsum. One operation of the algebra."""

from __future__ import annotations

import string
from typing import Any

from planc.rules.labels import Labelled, contract, even, insert, reduce, squeeze, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import pin_dims, rule


@rule("aten.linear")
def linear(cx: Facts, x: Labelled, weight: Labelled, bias: Labelled | None = None) -> Labelled:
    """x[..., i] @ weight[o, i].T + bias[o]."""
    if weight.rank == 1:
        return vector_product(cx, x, weight)
    batch = string.ascii_lowercase[: x.rank - 1]
    y = contract(cx, x, batch + "I", weight, "OI", batch + "O")
    cx.cost(1, *((x, d) for d in range(x.rank - 1)), (weight, 0), (weight, 1))
    return y if bias is None else unify(cx, y, bias, "add")


@rule("aten.matmul", "aten.mm", "aten.bmm")
def matmul(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    """Batched matrix product with torch.matmul's handling of vectors."""
    a = insert(x, 0) if x.rank == 1 else x
    b = insert(other, 1) if other.rank == 1 else other
    rank = max(a.rank, b.rank)
    batch = string.ascii_lowercase[: rank - 2]
    a_dims, b_dims = batch[rank - a.rank :] + "IJ", batch[rank - b.rank :] + "JK"
    y = contract(cx, a, a_dims, b, b_dims, batch + "IK")
    heads = [la for la in y.layers if la.target < rank - 2]
    cx.tag(heads, "heads")
    if x.rank > 1 and other.rank > 1:
        cx.cost(1, *((y, d) for d in range(rank)), (a, a.rank - 1))
    dropped = ([rank - 2] if x.rank == 1 else []) + ([rank - 1] if other.rank == 1 else [])
    return squeeze(cx, y, dropped)


@rule("aten._grouped_mm")
def grouped_matmul(
    cx: Facts, x: Labelled, mat2: Labelled, offs: Labelled | None = None, *_: Any, **__: Any
) -> Labelled:
    """Rows in runs that end at ``offs``, each run times a matrix of its own:
    y[s, n] = x[s, k] mat2[e(s), k, n], as in mixtures of experts. Its rows begin at multiples of 16
    bytes, however the matrices lie.
    """
    for value, dim in ((x, -1), (mat2, -2), (mat2, -1)):
        cx.aligned(value, dim % value.rank, 16)
    if offs is None and x.rank == mat2.rank == 3:
        return matmul(cx, x, mat2)
    if (x.rank, mat2.rank) != (2, 3) or offs is None:
        for value in (x, mat2):
            pin_dims(cx, value, range(value.rank), "multiplied in runs along it")
        return Labelled(cx.shape)
    pin_dims(cx, offs, range(offs.rank), "the runs of a grouped product are counted by position")
    x = even(cx, pin_dims(cx, x, (0,), "runs of rows are counted by position"), (0,))
    mat2 = pin_dims(cx, mat2, (0,), "matrices are picked by position, as experts are by a router")
    cx.cost(1, (x, 0), (mat2, 1), (mat2, 2))
    one = reduce(cx, mat2, (0,), keepdim=False)
    return contract(cx, x, "SK", one, "KN", "SN")


@rule("aten.mv", "aten.dot", "aten.vdot", "aten.inner")
def vector_product(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    """Products over the last dimensions."""
    left, right = string.ascii_lowercase[: x.rank - 1], string.ascii_uppercase[: other.rank - 1]
    return contract(cx, x, left + "Z", other, right + "Z", left + right)


@rule("aten.outer", "aten.ger")
def outer(cx: Facts, x: Labelled, vec2: Labelled) -> Labelled:
    return contract(cx, x, "i", vec2, "j", "ij")


@rule("aten.addmm", "aten.addbmm", "aten.baddbmm", "aten.addmv")
def addmm(cx: Facts, x: Labelled, left: Labelled, right: Labelled, **_: Any) -> Labelled:
    """x + left @ right."""
    product = matmul(cx, left, right)
    if product.rank == 3 and x.rank == 2:
        product = reduce(cx, product, (0,), keepdim=False)
    return unify(cx, x, product, "add")


@rule("aten.bilinear")
def bilinear(
    cx: Facts, x: Labelled, other: Labelled, weight: Labelled, bias: Labelled | None = None
) -> Labelled:
    """y[..., o] = x[..., i] weight[o, i, j] other[..., j] + bias[o]."""
    batch = string.ascii_lowercase[: x.rank - 1]
    half = contract(cx, x, batch + "I", weight, "OIJ", batch + "OJ")
    y = contract(cx, half, batch + "OJ", other, batch + "J", batch + "O")
    return y if bias is None else unify(cx, y, bias, "add")


@rule("aten.einsum")
def einsum(cx: Facts, equation: str, operands: tuple[Labelled, ...], **_: Any) -> Labelled:
    """Any number of operands, contracted from left to right."""
    inputs, output = _letters(equation.replace(" ", ""), [x.rank for x in operands])
    if any(len(set(dims)) < len(dims) for dims in inputs):
        for x in operands:
            pin_dims(cx, x, range(x.rank), "a diagonal is taken")
        return Labelled(cx.shape)
    result, dims = operands[0], inputs[0]
    for i, (other, other_dims) in enumerate(zip(operands[1:], inputs[1:], strict=True), start=1):
        later = set(output).union(*inputs[i + 1 :])
        kept = "".join(c for c in dict.fromkeys(dims + other_dims) if c in later)
        both = "".join(c for c in dims if c in other_dims)
        if len(operands) == 2:
            kept = output
        product = contract(cx, result, dims, other, other_dims, kept)
        # over a single coordinate nothing is summed: torch multiplies
        summed = [c for c in both if c not in kept and result.shape[dims.index(c)] > 1]
        factors = [(product, kept.index(c)) for c in kept] + [
            (result, dims.index(c)) for c in summed
        ]
        if summed:
            cx.cost(1, *factors)
            heads = [la for la in product.layers if kept[la.target] in both]
            cx.tag(heads, "heads")
        result, dims = product, kept
    if dims != output:
        unit = Labelled((1,) * len(dims))
        result = contract(cx, result, dims, unit, dims, output)
    return result


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; an ellipsis becomes unused letters."""
    left, arrow, output = equation.partition("->")
    inputs = left.split(",")
    spare = [c for c in string.ascii_letters if c not in equation]
    widest = 0
    expanded = []
    for dims, rank in zip(inputs, ranks, strict=True):
        missing = rank - len(dims.replace("...", "")) if "..." in dims else 0
        widest = max(widest, missing)
        expanded.append((dims, missing))
    ellipsis = spare[:widest]
    result = [d.replace("...", "".join(ellipsis[widest - m :])) for d, m in expanded]
    if arrow:
        return result, output.replace("...", "".join(ellipsis))
    counts = [c for dims in inputs for c in dims.replace("...", "")]
    return result, "".join(ellipsis) + "".join(
        sorted(c for c in set(counts) if counts.count(c) == 1)
    )


@rule("aten.cdist", "aten._cdist_forward", "aten.pairwise_distance", "aten.cosine_similarity")
def distance(cx: Facts, x: Labelled, other: Labelled, *_: Any, **__: Any) -> Labelled:
    """Distances look along features as a contraction does, but their result is their own."""
    for value in (x, other):
        pin_dims(cx, value, range(value.rank), "distances between vectors")
    return Labelled(cx.shape)
