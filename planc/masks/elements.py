"""Zeroing, extracting, storing sparsely and restoring single elements of one tensor.

``removed`` is a boolean array in the tensor's shape. Values are moved as bits, never computed with.
Every function returns a new tensor of the same device and dtype.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from planc.apply.tensors import bits_of, copy_tensor, plain_tensor
from planc.errors import PlancError, StalePlan
from planc.plan.masks import Elements

_SemiStructured = torch.sparse.SparseSemiStructuredTensor
Layout = Literal["csr", "coo", "semi-structured"]


def zeroed(tensor: torch.Tensor, removed: Elements) -> torch.Tensor:
    """Return ``tensor`` with zeros, written not multiplied, at the removed elements."""
    copied = copy_tensor(tensor)
    bits_of(copied).masked_fill_(_on(tensor, removed), 0)
    return copied


def zeros(tensor: torch.Tensor) -> Elements:
    """Return the elements equal to zero, of either sign.

    Compressed 2:4 tensors do not distinguish the signs.
    """
    found: Elements = (tensor.detach() == 0).cpu().numpy()
    return found


def taken(tensor: torch.Tensor, removed: Elements) -> torch.Tensor:
    """Return the removed values, one-dimensional, in C order."""
    tensor = plain_tensor(tensor)
    if tensor.is_meta:  # the count follows from the mask
        return tensor.new_empty(int(removed.sum()))
    return bits_of(tensor)[_on(tensor, removed)].view(tensor.dtype)


def put_back(masked: torch.Tensor, removed: Elements, values: torch.Tensor) -> torch.Tensor:
    """Return the source of ``zeroed`` or ``sparse``, with its removed values in place.

    Raises:
        StalePlan: the values do not match the removed elements in number or dtype.
    """
    whole = _strided(masked, removed)
    if isinstance(masked, _SemiStructured):
        removed = removed | zeros(whole)
    count = int(removed.sum())
    if (values.numel(), values.dtype) != (count, masked.dtype):
        raise StalePlan(
            f"{values.numel()} removed values of {values.dtype} for {count} removed elements of "
            f"{masked.dtype}; pass what was returned with keep_removed=True"
        )
    if not whole.is_meta:
        bits_of(whole)[_on(whole, removed)] = bits_of(plain_tensor(values)).to(whole.device)
    return whole


def sparse(tensor: torch.Tensor, removed: Elements, layout: Layout, name: str) -> torch.Tensor:
    """Return the kept elements of ``tensor`` as a sparse tensor; kept zeros are stored explicitly.

    Raises:
        PlancError: the layout cannot hold the tensor; says why.
    """
    tensor = plain_tensor(tensor)
    if layout == "semi-structured":
        return _semi_structured(zeroed(tensor, removed), removed, name)
    kept = ~removed
    values = taken(tensor, kept)
    indices = np.stack(np.nonzero(kept))
    if layout == "coo":
        return torch.sparse_coo_tensor(
            torch.from_numpy(indices).to(tensor.device),
            values,
            tensor.shape,
            is_coalesced=True,
            check_invariants=False,
        )
    rows = np.concatenate(([0], np.cumsum(kept.sum(axis=1, dtype=np.int64))))
    return torch.sparse_csr_tensor(
        torch.from_numpy(rows).to(tensor.device),
        torch.from_numpy(indices[1]).to(tensor.device),
        values,
        tensor.shape,
        check_invariants=False,
    )


def _strided(tensor: torch.Tensor, removed: Elements) -> torch.Tensor:
    """Return a new strided tensor with the kept values of a masked one in any layout."""
    if isinstance(tensor, _SemiStructured):
        whole: torch.Tensor = tensor.detach().to_dense()
        return whole
    if tensor.layout not in (torch.sparse_coo, torch.sparse_csr):
        return copy_tensor(tensor)
    tensor = tensor.detach()
    values = tensor.values() if tensor.layout is torch.sparse_csr else tensor._values()
    if values.numel() != removed.size - int(removed.sum()):
        raise StalePlan(
            f"a sparse tensor of {values.numel()} values, the mask plan keeps "
            f"{removed.size - int(removed.sum())} of {removed.size}; restore what the plan made"
        )
    whole = torch.zeros(tensor.shape, dtype=values.dtype, device=values.device)
    bits_of(whole)[_on(whole, ~removed)] = bits_of(values)
    return whole


def _semi_structured(tensor: torch.Tensor, removed: Elements, name: str) -> torch.Tensor:
    """Return a 2:4 sparse matrix in torch's compressed form for GPUs."""
    if tensor.dim() != 2 or tensor.shape[1] % 4:
        raise PlancError(
            f"{name} has shape {tuple(tensor.shape)}: semi-structured tensors are matrices with "
            "rows of a multiple of 4 elements; leave it out of the mask plan"
        )
    kept = (~removed).reshape(-1, 4).sum(axis=1)
    if int(kept.max(initial=0)) > 2:
        row = int(np.flatnonzero(kept > 2)[0]) * 4 // tensor.shape[1]
        raise PlancError(
            f"{name} keeps {int(kept.max())} of 4 consecutive elements in row {row}, "
            "semi-structured tensors hold 2: select with planc.masks.NofM(2, 4)"
        )
    try:
        compressed: torch.Tensor = torch.sparse.to_sparse_semi_structured(tensor)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        advice = "leave it out of the mask plan, or choose another form"
        if tensor.device.type != "cuda":
            advice = f"such tensors exist on CUDA devices and this one is on {tensor.device}"
        raise PlancError(
            f"{name} ({tensor.dtype}{list(tensor.shape)}) cannot be semi-structured: "
            f"{str(error).splitlines()[0]}; {advice}"
        ) from error
    return compressed


def _on(tensor: torch.Tensor, elements: Elements) -> torch.Tensor:
    return torch.from_numpy(np.array(elements, order="C")).to(tensor.device)
