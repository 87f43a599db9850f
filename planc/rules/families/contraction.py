"""Contractions: sums of products over letters, as in einsum. One operation of the algebra."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from planc.rules.common import axis, pin_dims
from planc.rules.contractions import einsum_letters, matrix_letters
from planc.rules.families.reduction import summed, vector_norm
from planc.rules.labels import Labelled, contract, even, insert, reduce, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.linear")
def linear(facts: Facts, x: Labelled, weight: Labelled, bias: Labelled | None = None) -> Labelled:
    """x[..., i] @ weight[o, i].T + bias[o]."""
    if weight.rank == 1:
        return vector_product(facts, x, weight)
    batch = string.ascii_lowercase[: x.rank - 1]
    y = contract(facts, x, batch + "I", weight, "OI", batch + "O")
    facts.cost(1, *((x, d) for d in range(x.rank - 1)), (weight, 0), (weight, 1))
    return y if bias is None else unify(facts, y, bias, "add")


@rule("aten.matmul", "aten.linalg_matmul", "aten.mm", "aten.bmm")
def matmul(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    """Batched matrix product with torch.matmul's handling of vectors."""
    (left, right), out = matrix_letters(x.rank, other.rank)
    y = contract(facts, x, left, other, right, out)
    facts.tag([la for la in y.layers if la.target < max(x.rank, other.rank) - 2], "heads")
    if x.rank > 1 and other.rank > 1:
        facts.cost(1, *((y, d) for d in range(y.rank)), (x, x.rank - 1))
    return y


@rule("aten._grouped_mm")
def grouped_matmul(
    facts: Facts, x: Labelled, mat2: Labelled, offs: Labelled | None = None, *_: Any, **__: Any
) -> Labelled:
    """y[s, n] = x[s, k] mat2[e(s), k, n], as in mixtures of experts: runs of rows, each ending at
    an entry of ``offs`` and multiplied by its own matrix. Rows must begin at multiples of 16 bytes
    in any layout of the matrices.
    """
    for value, dim in ((x, -1), (mat2, -2), (mat2, -1)):
        facts.aligned(value, dim % value.rank, 16)
    if offs is None and x.rank == mat2.rank == 3:
        return matmul(facts, x, mat2)
    if (x.rank, mat2.rank) != (2, 3) or offs is None:
        for value in (x, mat2):
            pin_dims(facts, value, range(value.rank), "multiplied in runs along it")
        return Labelled(facts.shape)
    pin_dims(facts, offs, range(offs.rank), "the runs of a grouped product are counted by position")
    x = even(facts, pin_dims(facts, x, (0,), "runs of rows are counted by position"), (0,))
    mat2 = pin_dims(
        facts, mat2, (0,), "matrices are picked by position, as experts are by a router"
    )
    facts.cost(1, (x, 0), (mat2, 1), (mat2, 2))
    one = reduce(facts, mat2, (0,), keepdim=False)
    return contract(facts, x, "SK", one, "KN", "SN")


@rule("aten.mv", "aten.dot", "aten.vdot", "aten.inner")
def vector_product(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    """Products over the last dimensions."""
    left, right = string.ascii_lowercase[: x.rank - 1], string.ascii_uppercase[: other.rank - 1]
    return contract(facts, x, left + "Z", other, right + "Z", left + right)


@rule("aten.linalg_vecdot")
def vector_dot(facts: Facts, x: Labelled, y: Labelled, *, dim: int = -1) -> Labelled:
    """The sums of products along a dimension."""
    product = unify(facts, x, y, "mul")
    return summed(facts, product, (axis(product, dim),), keepdim=False)


@rule("aten.outer", "aten.ger")
def outer(facts: Facts, x: Labelled, vec2: Labelled) -> Labelled:
    return contract(facts, x, "i", vec2, "j", "ij")


@rule("aten.addmm", "aten.addbmm", "aten.baddbmm", "aten.addmv")
def addmm(facts: Facts, x: Labelled, left: Labelled, right: Labelled, **_: Any) -> Labelled:
    """x + left @ right."""
    product = matmul(facts, left, right)
    if product.rank == 3 and x.rank == 2:
        product = reduce(facts, product, (0,), keepdim=False)
    return unify(facts, x, product, "add")


@rule("aten.addr")
def addr(facts: Facts, x: Labelled, vec1: Labelled, vec2: Labelled, **_: Any) -> Labelled:
    """x + the outer product of two vectors."""
    return unify(facts, x, outer(facts, vec1, vec2), "add")


@rule("aten.bilinear")
def bilinear(
    facts: Facts, x: Labelled, other: Labelled, weight: Labelled, bias: Labelled | None = None
) -> Labelled:
    """y[..., o] = x[..., i] weight[o, i, j] other[..., j] + bias[o]."""
    batch = string.ascii_lowercase[: x.rank - 1]
    half = contract(facts, x, batch + "I", weight, "OIJ", batch + "OJ")
    y = contract(facts, half, batch + "OJ", other, batch + "J", batch + "O")
    return y if bias is None else unify(facts, y, bias, "add")


@rule("aten.einsum")
def einsum(facts: Facts, equation: str, operands: tuple[Labelled, ...], **_: Any) -> Labelled:
    """Any number of operands, contracted from left to right."""
    inputs, output = einsum_letters(equation, [x.rank for x in operands])
    if any(len(set(dims)) < len(dims) for dims in inputs):
        for x in operands:
            pin_dims(facts, x, range(x.rank), "a diagonal is taken")
        return Labelled(facts.shape)
    result, dims = operands[0], inputs[0]
    for i, (other, other_dims) in enumerate(zip(operands[1:], inputs[1:], strict=True), start=1):
        later = set(output).union(*inputs[i + 1 :])
        kept = "".join(c for c in dict.fromkeys(dims + other_dims) if c in later)
        both = "".join(c for c in dims if c in other_dims)
        if len(operands) == 2:
            kept = output
        product = contract(facts, result, dims, other, other_dims, kept)
        # torch multiplies instead of summing over a single coordinate
        summed = [c for c in both if c not in kept and result.shape[dims.index(c)] > 1]
        factors = [(product, kept.index(c)) for c in kept] + [
            (result, dims.index(c)) for c in summed
        ]
        if summed:
            facts.cost(1, *factors)
            heads = [la for la in product.layers if kept[la.target] in both]
            facts.tag(heads, "heads")
        result, dims = product, kept
    if dims != output:
        unit = Labelled((1,) * len(dims))
        result = contract(facts, result, dims, unit, dims, output)
    return result


@rule("aten.tensordot")
def tensordot(
    facts: Facts, x: Labelled, other: Labelled, dims_self: Sequence[int], dims_other: Sequence[int]
) -> Labelled:
    """The sum of products over pairs of dimensions."""
    left, right = list(string.ascii_lowercase[: x.rank]), list(string.ascii_uppercase[: other.rank])
    summed = [left[axis(x, d)] for d in dims_self]
    for letter, d in zip(summed, dims_other, strict=True):
        right[axis(other, d)] = letter
    out = "".join(c for c in (*left, *right) if c not in summed)
    y = contract(facts, x, "".join(left), other, "".join(right), out)
    facts.cost(1, *((y, d) for d in range(y.rank)), *((x, axis(x, d)) for d in dims_self))
    return y


@rule("aten.linalg_multi_dot", "aten.chain_matmul")
def product_of_all(facts: Facts, tensors: Sequence[Labelled]) -> Labelled:
    """A product of matrices; the first and the last may be vectors."""
    first, *rest = tensors
    for other in rest:
        first = matmul(facts, first, other)
    return first


@rule("aten._weight_int8pack_mm")
def quantised_linear(facts: Facts, x: Labelled, mat2: Labelled, scales: Labelled) -> Labelled:
    """x[n, i] @ weight[o, i].T * scales[o]."""
    return unify(facts, linear(facts, x, mat2), scales, "mul")


# -- distances -------------------------------------------------------------------------------------


@rule("aten.cdist", "aten._cdist_forward")
def distances(
    facts: Facts, x: Labelled, other: Labelled, p: float = 2.0, compute_mode: Any = None
) -> Labelled:
    """Norms of differences, of each vector of x[..., p, m] and each of other[..., r, m]."""
    apart = unify(facts, insert(x, x.rank - 1), insert(other, other.rank - 2), "add")
    return vector_norm(facts, apart, p, (apart.rank - 1,))


@rule("aten.dist")
def distance_of_all(facts: Facts, x: Labelled, other: Labelled, p: float = 2.0) -> Labelled:
    return vector_norm(facts, unify(facts, x, other, "add"), p)


@rule("aten.pairwise_distance")
def pairwise_distance(
    facts: Facts,
    x: Labelled,
    other: Labelled,
    p: float = 2.0,
    eps: float = 1e-6,
    keepdim: Any = False,
) -> Labelled:
    """The norm of ``x - other + eps``."""
    apart = unify(facts, x, other, "add")
    dim = apart.rank - 1
    if eps:
        facts.mix(apart.targeting(dim), "a distance adds its eps for each coordinate")
        apart = apart.nonzero()
    return vector_norm(facts, apart, p, (dim,), keepdim)


@rule("aten.cosine_similarity")
def cosine_similarity(
    facts: Facts, x: Labelled, other: Labelled, dim: int = 1, eps: float = 1e-8
) -> Labelled:
    """The sum of products of two vectors over the product of their norms."""
    product = unify(facts, x, other, "mul")
    return summed(facts, product, (axis(product, dim),), keepdim=False)
