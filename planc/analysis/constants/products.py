"""The operands of products: coordinates contributing to the sums of a contraction.

For convolutions and linear layers, :class:`Affine` relates results to the channels they may depend
on. For other contractions, :func:`factors` gives the places of each operand multiplied by a
possibly nonzero value.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from planc.analysis.constants.known import Known
from planc.analysis.constants.views import base
from planc.analysis.constants.walk import Visit
from planc.ir.graph import Ref
from planc.rules.contractions import Contraction, contraction, einsum_letters, matrix_letters

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A convolution or a linear layer, in any spelling, and the positions ``form`` of its operands.
    ``at`` is the dimension of the channels of ``x``; ``taken[o, c]`` is True if the weight from
    channel c to result o may be nonzero; ``bias`` is the argument holding the bias, if any.
    """

    form: Contraction
    x: Known
    source: Ref
    weight: Known
    at: int
    taken: Flags
    bias: Ref | None

    @staticmethod
    def of(visit: Visit) -> Affine | None:
        """The operands at a visited node; None for other operators, and for unusual ranks."""
        form, args, node = contraction(visit.node.op), visit.args, visit.node
        if form is None or visit.kwargs:
            return None
        x, weight, source = args[form.x], args[form.weight], node.args[form.x]
        rank, kernel = x.value.dim(), weight.value.dim()
        if kernel != (rank if form.convolution else 2):
            return None  # an image without a batch, or a batch of matrices
        if form.convolution:
            at, taken = 1, _spread(form, weight, groups_of(visit))
        else:
            at, taken = rank - 1, _flags(weight.maybe.T if form.transposed else weight.maybe)
        bias = node.args[form.bias] if form.bias is not None and form.bias < len(args) else None
        return Affine(form, x, source, weight, at, taken, bias if isinstance(bias, Ref) else None)

    @property
    def meets(self) -> Flags:
        """``taken``, restricted to channels that may be nonzero."""
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


def _spread(form: Contraction, weight: Known, groups: int) -> Flags:
    """The weights of a grouped convolution, spread over all channels: [out, in]."""
    taken = _flags(weight.maybe.flatten(2).any(dim=2))
    blocks = np.split(taken, groups)
    if form.transposed:
        blocks = [block.T for block in blocks]
    out, inside = blocks[0].shape
    spread = np.zeros((out * groups, inside * groups), dtype=bool)
    for i, block in enumerate(blocks):
        spread[i * out : (i + 1) * out, i * inside : (i + 1) * inside] = block
    return spread


def _flags(mask: Tensor) -> Flags:
    found: Flags = mask.cpu().numpy()
    return found


# -- contractions of two activations ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """One operand of a contraction: ``meets`` are the places where it may contribute to the sum
    over its dimensions ``summed``.
    """

    ref: Ref
    meets: Flags
    summed: tuple[int, ...]


def factors(visit: Visit) -> list[Factor] | None:
    """The operands of a contraction; None for other operators, and for unsupported forms."""
    name, args, given = base(visit.node), visit.args, visit.node.args
    form = contraction(visit.node.op)
    if form is not None and form.transposed and not form.convolution:
        pair = (form.x, form.weight)
        left, right = (args[at].maybe for at in pair)
        dims, _ = matrix_letters(left.dim(), right.dim())
        return _meeting(tuple(given[at] for at in pair), (left, right), dims, "J")
    if name == "linear" and args[1].value.dim() == 2:
        batch = string.ascii_lowercase[: args[0].value.dim() - 1]
        return _meeting(given[:2], (args[0].maybe, args[1].maybe), (batch + "J", "KJ"), "J")
    if name == "_grouped_mm" and (args[0].value.dim(), args[1].value.dim()) == (2, 3):
        return _meeting(given[:2], (args[0].maybe, args[1].maybe), ("SK", "EKN"), "K")
    if name == "einsum":
        maybe = tuple(x.maybe for x in args[1])
        dims, out = einsum_letters(str(args[0]), [mask.dim() for mask in maybe])
        if args[2:] or any(len(set(letters)) < len(letters) for letters in dims):
            return None
        return _meeting(given[1], maybe, dims, "".join(set("".join(dims)) - set(out)))
    if name == "bilinear":
        batch = string.ascii_lowercase[: args[0].value.dim() - 1]
        maybe = tuple(x.maybe for x in args[:3])
        return _meeting(given[:3], maybe, (batch + "I", batch + "J", "OIJ"), "IJ")
    if name == "scaled_dot_product_attention":
        return list(_attention(visit))
    return None


def _meeting(
    refs: tuple[Ref, ...], maybe: tuple[Tensor, ...], dims: Sequence[str], summed: str
) -> list[Factor]:
    """The factors of operands with a letter for each dimension: each meets all others at equal
    letters.
    """
    found = []
    for i, mask in enumerate(maybe):
        meets = mask
        for j, other in enumerate(maybe):
            if j != i:
                meets = meets & _aligned(other, dims[j], dims[i])
        spread = [d for d, n in enumerate(mask.shape) if n == 1 and meets.shape[d] > 1]
        if spread:  # broadcast over a batch of the others
            meets = meets.any(dim=spread, keepdim=True)
        at = tuple(d for d, letter in enumerate(dims[i]) if letter in summed)
        found.append(Factor(refs[i], _flags(meets), at))
    return found


def _aligned(mask: Tensor, dims: str, to: str) -> Tensor:
    """A mask reduced to the letters of ``to``, in their order."""
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
