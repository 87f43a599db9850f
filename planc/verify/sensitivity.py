"""Sensitivity of compared outputs: their change by other inputs of the same shapes.

Outputs that no input changes agree for any model, so their comparison proves nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from planc.apply.validate import Call
from planc.errors import VerificationError
from planc.modules.nesting import leaves, map_leaves
from planc.verify.outputs import gaps, largest, run


def sensitivity(model: nn.Module, call: Call) -> float | None:
    """Return the largest change of an output by other inputs, relative to its largest value.

    Infinite where the shapes change. None if the model accepts no other inputs, or has none.
    """
    expected = run(model, call)
    for other in (_other, _other_numbers):  # integers may be lengths or indices with a bound
        changed = map_leaves(other, call)
        if all(new is old for new, old in zip(leaves(changed), leaves(call), strict=True)):
            continue
        try:
            found = run(model, changed)
        except VerificationError:
            continue
        return _change(found, expected)
    return None


def _change(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    if [value.shape for value in found] != [value.shape for value in expected]:
        return float("inf")
    changes = [0.0]
    for here, there in zip(found, expected, strict=True):
        apart, scale = gaps(here, there).nan_to_num(0.0), max(largest(here), largest(there))
        changes.append(float(apart.max()) / scale if apart.numel() and scale else 0.0)
    return max(changes)


def _other(leaf: Any) -> Any:
    return _other_numbers(_other_integers(leaf))


def _other_integers(leaf: Any) -> Any:
    """Return integers in another order, of the same range; equal ones one less, or 0 and 1."""
    if not isinstance(leaf, torch.Tensor) or leaf.dtype not in _INTEGERS or not leaf.numel():
        return leaf
    mixed = leaf.reshape(-1)[_order(leaf.numel(), leaf.device)].reshape(leaf.shape)
    if not torch.equal(mixed, leaf):
        return mixed
    if bool((leaf > 0).all()):
        return leaf - 1
    places = torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape)
    return (1 - places % 2).to(leaf.dtype)


def _other_numbers(leaf: Any) -> Any:
    """Return numbers between those of the tensor in another order; within (0, 1) for equal ones."""
    number = isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    if not number or not leaf.numel() or leaf.layout is not torch.strided:
        return leaf
    flat, generator = leaf.detach().reshape(-1), torch.Generator().manual_seed(0)
    share = torch.rand(flat.shape, generator=generator).to(flat.device, torch.float64)
    ends = flat.to(torch.complex128 if leaf.is_complex() else torch.float64)
    mixed = ends + share * (ends[_order(len(flat), flat.device)] - ends)
    if torch.equal(mixed, ends):
        mixed = share.to(mixed.dtype)
    return mixed.to(leaf.dtype).reshape(leaf.shape)


def _order(count: int, device: torch.device) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(device)


_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
