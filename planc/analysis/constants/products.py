"""Where the operands of a product meet: which coordinates that are summed over contribute.

In: a visit to a node that contracts. Out: for convolutions and linear layers, which result takes
from which channel what may not be zero; for other contractions, where each operand meets what may
not be zero.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from planc.analysis.constants.known import Known
from planc.analysis.constants.walk import Visit, base
from planc.ir.graph import Ref

Flags = NDArray[np.bool_]
CONVOLUTIONS = tuple(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3))
ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A convolution or a linear layer, however it is written. ``at`` is the dimension of the
    channels of ``x``; ``taken[o, c]`` says whether the weight with which result o takes from
    channel c may be other than zero; ``bias`` is the argument that holds one, if any.
    """

    x: Known
    source: Ref
    weight: Known
    at: int
    taken: Flags
    bias: Ref | None

    @staticmethod
    def of(visit: Visit) -> Affine | None:
        """None where the operator is another, or its operands are not of the usual ranks."""
        name, args, node = base(visit.node), visit.args, visit.node
        first = 1 if name == "addmm" else 0
        if name not in (*CONVOLUTIONS, "linear", "matmul", "mm", "addmm") or visit.kwargs:
            return None
        x, weight, source = args[first], args[first + 1], node.args[first]
        rank, kernel = x.value.dim(), weight.value.dim()
        bias = node.args[2] if len(args) > 2 else None
        if name in CONVOLUTIONS:
            if rank != kernel:
                return None  # an image without a batch
            at, taken = 1, _spread(visit, weight)
        elif kernel != 2:
            return None
        else:
            at, taken = rank - 1, _flags(weight.maybe if name == "linear" else weight.maybe.T)
            bias = node.args[0] if name == "addmm" else bias
        return Affine(x, source, weight, at, taken, bias if isinstance(bias, Ref) else None)

    @property
    def meets(self) -> Flags:
        """``taken`` from channels that may be other than zero."""
        return self.taken & _flags(self._over(self.x.maybe, any))

    @property
    def known(self) -> Flags:
        """The channels that are the same for all inputs."""
        return _flags(self._over(self.x.known, all))

    def _over(self, mask: Tensor, how: object) -> Tensor:
        others = [d for d in range(mask.dim()) if d != self.at]
        if not others:
            return mask
        return mask.any(dim=others) if how is any else mask.all(dim=others)


def groups_of(visit: Visit) -> int:
    """The groups of a convolution."""
    return int(visit.args[6]) if len(visit.args) > 6 else 1


def transposed(visit: Visit) -> bool:
    """Whether a convolution is a transposed one."""
    return "transpose" in base(visit.node)


def _spread(visit: Visit, weight: Known) -> Flags:
    """The weights of a convolution in groups, spread over all channels: [out, in]."""
    taken, groups = _flags(weight.maybe.flatten(2).any(dim=2)), groups_of(visit)
    blocks = np.split(taken, groups)
    if transposed(visit):
        blocks = [block.T for block in blocks]
    out, inside = blocks[0].shape
    spread = np.zeros((out * groups, inside * groups), dtype=bool)
    for i, block in enumerate(blocks):
        spread[i * out : (i + 1) * out, i * inside : (i + 1) * inside] = block
    return spread


def _flags(mask: Tensor) -> Flags:
    found: Flags = mask.cpu().numpy()
    return found


# -- contractions of what both depends on the inputs -----------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """One operand of a contraction: ``meets`` says where it may contribute to what is summed over
    its dimensions ``summed``.
    """

    ref: Ref
    meets: Flags
    summed: tuple[int, ...]


def factors(visit: Visit) -> list[Factor] | None:
    """The operands of a contraction; None where the operator is none, or is not understood."""
    name, args, given = base(visit.node), visit.args, visit.node.args
    if name in ("matmul", "mm", "bmm", "addmm", "baddbmm"):
        at = 1 if name.endswith("addmm") or name == "baddbmm" else 0
        left, right = args[at : at + 2]
        dims = _matrix_letters(left.value.dim(), right.value.dim())
        return _meeting(given[at : at + 2], (left.maybe, right.maybe), dims, "J")
    if name == "_grouped_mm" and (args[0].value.dim(), args[1].value.dim()) == (2, 3):
        return _meeting(given[:2], (args[0].maybe, args[1].maybe), ("SK", "EKN"), "K")
    if name == "einsum":
        letters, summed = _einsum_letters(str(args[0]))
        if not letters or args[2:]:
            return None
        return _meeting(given[1], tuple(x.maybe for x in args[1]), letters, summed)
    if name == "bilinear":
        batch = string.ascii_lowercase[: args[0].value.dim() - 1]
        maybe = tuple(x.maybe for x in args[:3])
        return _meeting(given[:3], maybe, (batch + "I", batch + "J", "OIJ"), "IJ")
    if name == ATTENTION:
        return list(_attention(visit))
    return None


def _matrix_letters(left: int, right: int) -> tuple[str, str]:
    batch = string.ascii_lowercase[: max(left, right, 2) - 2]
    a = "J" if left == 1 else batch[len(batch) + 2 - left :] + "IJ"
    return a, "J" if right == 1 else batch[len(batch) + 2 - right :] + "JK"


def _einsum_letters(equation: str) -> tuple[list[str], str]:
    """The letters of each operand, and those that are summed over; no operands where a letter
    occurs twice in one, or dimensions are left out.
    """
    left, arrow, out = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if "." in equation or not arrow or any(len(set(dims)) < len(dims) for dims in inputs):
        return [], ""
    return inputs, "".join(set("".join(inputs)) - set(out))


def _meeting(
    refs: tuple[Ref, ...], maybe: tuple[Tensor, ...], dims: Sequence[str], summed: str
) -> list[Factor]:
    """Operands with a letter for each dimension: each meets all others at equal letters."""
    found = []
    for i, mask in enumerate(maybe):
        meets = mask
        for j, other in enumerate(maybe):
            if j != i:
                meets = meets & _aligned(other, dims[j], dims[i])
        spread = [d for d, n in enumerate(mask.shape) if n == 1 and meets.shape[d] > 1]
        if spread:  # others have a batch that this one is broadcast over
            meets = meets.any(dim=spread, keepdim=True)
        at = tuple(d for d, letter in enumerate(dims[i]) if letter in summed)
        found.append(Factor(refs[i], _flags(meets), at))
    return found


def _aligned(mask: Tensor, dims: str, to: str) -> Tensor:
    """A mask without the letters that ``to`` has not, in the order of ``to``."""
    others = [d for d, letter in enumerate(dims) if letter not in to]
    kept = [letter for letter in dims if letter in to]
    mask = mask.any(dim=others) if others else mask
    order = [kept.index(letter) for letter in to if letter in kept]
    shape = iter(mask.permute(order).shape)
    return mask.permute(order).reshape([next(shape) if c in kept else 1 for c in to])


def _attention(visit: Visit) -> Iterator[Factor]:
    """Queries meet keys feature by feature, values are summed over positions."""
    query, key, value = (x.maybe for x in visit.args[:3])
    rank = query.dim()
    shared, times = query, 1
    if visit.kwargs.get("enable_gqa", False):
        times = query.shape[-3] // key.shape[-3]
        shared = query.unflatten(-3, (-1, times)).any(dim=-3)
    letters = string.ascii_lowercase[: rank - 2]
    keys = key.repeat_interleave(times, -3) if times > 1 else key
    of_query = _meeting(visit.node.args[:2], (query, keys), (letters + "LE", letters + "SE"), "E")
    of_key = _meeting(visit.node.args[:2], (shared, key), (letters + "LE", letters + "SE"), "E")
    yield of_query[0]
    yield of_key[1]
    yield Factor(visit.node.args[2], _flags(value), (value.dim() - 2,))
