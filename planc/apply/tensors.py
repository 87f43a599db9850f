"""Cutting, masking and restoring a single tensor.

Every function returns a new tensor without storage shared with its arguments, of the same dtype,
device and memory format. Values are moved as bits, never computed with: NaN payloads, negative
zeros and dtypes without arithmetic survive unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from planc.errors import PlancError, StalePlan
from planc.ir.groups import Indices
from planc.plan.plan import Cut, Ragged

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def cut_tensor(tensor: torch.Tensor, cut: Cut) -> torch.Tensor:
    """Return ``tensor`` without its removed coordinates; also on the meta device."""
    tensor = plain_tensor(tensor)
    order = _stride_order(tensor)
    bits = bits_of(tensor).permute(order)
    steps = _steps(cut)
    for step in steps:
        dim = order.index(step.dim)
        if step.over is None:
            bits = _select(bits, dim, step.ranges[0].kept)
        else:
            over = order.index(step.over)
            blocks = [
                _select(bits.narrow(over, part.start, part.stop - part.start), dim, part.kept)
                for part in step.ranges
            ]
            bits = torch.cat(blocks, over)
    if not steps:
        bits = bits.clone()
    # .data: a new tensor, not a view of the permuted one
    return bits.permute(_inverse(order)).view(tensor.dtype).data


def mask_tensor(tensor: torch.Tensor, cut: Cut, whole: int | None = None) -> torch.Tensor:
    """Return ``tensor`` with zeros, written not multiplied, at the removed coordinates.

    Coordinates removed along dimension ``whole`` keep their values.
    """
    masked = copy_tensor(tensor)
    bits = bits_of(masked)
    tables = list(_removed_tables(cut, tensor.shape))
    spared = [table for dim, table in tables if dim == whole]
    for dim, table in tables:
        if dim != whole:
            lost = table & ~spared[0] if spared else table
            bits.masked_fill_(torch.tensor(lost, device=tensor.device), 0)
    return masked


def removed_values(tensor: torch.Tensor, cut: Cut) -> torch.Tensor:
    """Return the values at the removed coordinates, one-dimensional, in C order."""
    tensor = plain_tensor(tensor)
    if tensor.is_meta:  # the count follows from the shapes
        return tensor.new_empty(tensor.numel() - math.prod(cut.shape))
    bits, mask = bits_of(tensor), _removed_mask(cut, tensor.shape)
    if bits.device.type == "cpu":  # several times faster than masked_select
        return torch.from_numpy(bits.numpy()[mask]).view(tensor.dtype)
    return bits.masked_select(torch.from_numpy(mask).to(bits.device)).view(tensor.dtype)


def uncut_tensor(
    small: torch.Tensor, removed: torch.Tensor, cut: Cut, shape: tuple[int, ...]
) -> torch.Tensor:
    """Return the tensor of ``shape`` from the results of ``cut_tensor`` and ``removed_values``.

    Raises:
        StalePlan: the two do not have the shapes given by the cut, or differ in dtype.
    """
    expected = (cut.shape, math.prod(shape) - math.prod(cut.shape), small.dtype)
    if (tuple(small.shape), removed.numel(), removed.dtype) != expected:
        raise StalePlan(
            f"a tensor of {tuple(small.shape)} {small.dtype} and {removed.numel()} removed values "
            f"of {removed.dtype} do not make one of {shape}: {cut.shape} and {expected[1]} values "
            "do; pass what apply(..., keep_removed=True) returned"
        )
    small = plain_tensor(small)
    order = _stride_order(small)
    bits = bits_of(small).permute(order)
    for step in reversed(_steps(cut)):
        dim = order.index(step.dim)
        sizes = list(bits.shape)
        sizes[dim] = shape[step.dim]
        whole = bits.new_empty(sizes)
        over = None if step.over is None else order.index(step.over)
        for part in step.ranges:
            into, source = whole, bits
            if over is not None:
                into = whole.narrow(over, part.start, part.stop - part.start)
                source = bits.narrow(over, part.start, part.stop - part.start)
            into.index_copy_(dim, _index(part.kept, bits), source)
        bits = whole
    bits = bits.permute(_inverse(order))
    if not small.is_meta:
        mask = torch.from_numpy(_removed_mask(cut, bits.shape)).to(bits.device)
        bits.masked_scatter_(mask, bits_of(plain_tensor(removed)).to(bits.device))
    return bits.view(small.dtype).data


def copy_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return an equal tensor with its own storage."""
    return plain_tensor(tensor).clone()


@dataclass(frozen=True, slots=True)
class _Step:
    """A cut of dimension ``dim``; each range along ``over`` has its own kept indices."""

    dim: int
    over: int | None
    ranges: tuple[Ragged, ...]


def _steps(cut: Cut) -> tuple[_Step, ...]:
    """Return the steps of a cut, ragged ones first, because their ranges index the uncut other
    dimension.
    """
    waiting = [_Step(*part) for part in cut.ragged]
    if len({step.dim for step in waiting}) < len(waiting):
        raise PlancError(
            f"a tensor cut to {cut.shape} would be ragged over two dimensions at once: "
            f"{[(step.dim, step.over) for step in waiting]}; leave one of the groups whole"
        )
    steps: list[_Step] = []
    while waiting:
        used = {step.over for step in waiting}
        ready = [step for step in waiting if step.dim not in used]
        if not ready:
            raise PlancError(
                f"a tensor cut to {cut.shape} has dimensions that are ragged over each other: "
                f"{[(step.dim, step.over) for step in waiting]}; leave one of the groups whole"
            )
        steps += ready
        waiting = [step for step in waiting if step.dim in used]
    for dim, kept in enumerate(cut.kept):
        if kept is not None:
            steps.append(_Step(dim, None, (Ragged(0, 0, kept),)))
    return tuple(steps)


def _select(bits: torch.Tensor, dim: int, kept: Indices) -> torch.Tensor:
    """Select indices of a dimension: ``gather`` for the innermost one, else ``index_select``.

    ``gather`` is several times faster there, because it does not step from row to row once per
    index.
    """
    before, after = tuple(bits.shape[:dim]), tuple(bits.shape[dim + 1 :])
    outer, inner = math.prod(before), math.prod(after)
    index = _index(kept, bits)
    if inner == 1:
        picked = bits.reshape(outer, bits.shape[dim]).gather(1, index.expand(outer, -1))
    else:
        picked = bits.reshape(outer, bits.shape[dim], inner).index_select(1, index)
    return picked.reshape(*before, len(kept), *after)


def _removed_tables(cut: Cut, shape: torch.Size) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield the dimension and the removed coordinates of each step, True where removed.

    A table has size 1 in all dimensions irrelevant to its step.
    """
    for step in _steps(cut):
        rows = 1 if step.over is None else shape[step.over]
        gone = np.ones((rows, shape[step.dim]), dtype=bool)
        for part in step.ranges:
            gone[slice(None) if step.over is None else slice(part.start, part.stop), part.kept] = 0
        if step.over is not None and step.over > step.dim:
            gone = gone.T
        sizes = [n if dim in (step.dim, step.over) else 1 for dim, n in enumerate(shape)]
        yield step.dim, gone.reshape(sizes)


def _removed_mask(cut: Cut, shape: torch.Size) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    for _, table in _removed_tables(cut, shape):
        mask |= table
    return mask


def _index(indices: Indices, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(indices, dtype=torch.int64, device=like.device)


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().resolve_conj().resolve_neg()


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same memory as integers; complex128 stays, since it is wider than any integer."""
    bits = _BITS.get(tensor.element_size())
    return tensor if bits is None else tensor.view(bits)


def _stride_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the permutation making a dense tensor contiguous, for any memory format."""
    plain, strides = tuple(range(tensor.dim())), tensor.stride()
    # of two equal strides, one belongs to a dimension of size 1 inside the other
    order = sorted(plain, key=lambda dim: (-strides[dim], -tensor.shape[dim]))
    return tuple(order) if tensor.permute(order).is_contiguous() else plain


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(dim) for dim in range(len(order)))
