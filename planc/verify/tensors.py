"""Tensor check: every tensor of a result is the slice of the original's given by the labels."""

from __future__ import annotations

import torch
from torch import nn

from planc.analysis import Analysis, Gone
from planc.apply.replay import sliced
from planc.errors import VerificationError
from planc.ir.graph import CAPTURED
from planc.modules.hooks import masked_tensors
from planc.modules.tree import tensors_by_name


def check_tensors(analysis: Analysis, gone: Gone, model: nn.Module, smaller: nn.Module) -> str:
    """Compare every tensor of the result bit for bit with the slice given by the labels."""
    before, after = tensors_by_name(model), tensors_by_name(smaller)
    shapes = analysis.shapes(gone)
    wanted = {name for tensor in analysis.graph.tensors for name in tensor.names}
    captured = {f"{CAPTURED}{value}" for value in analysis.graph.captured}
    after = {name: new for name, new in after.items() if name not in captured}
    if set(after) != wanted:
        names = sorted(set(after) ^ wanted)
        raise VerificationError(f"the pruned model has other tensors: {', '.join(names[:5])}")
    for tensor in analysis.graph.tensors:
        old = before[tensor.name]
        for name in tensor.names:
            new = after[name]
            if new is not after[tensor.name]:
                raise VerificationError(f"{name} is no longer tied to {tensor.name}")
            if tuple(new.shape) != shapes[tensor.value]:
                raise VerificationError(
                    f"{name} has shape {tuple(new.shape)}, predicted {shapes[tensor.value]}"
                )
        new = after[tensor.name]
        kind = "parameter" if isinstance(new, nn.Parameter) else "buffer"
        if kind != tensor.kind:
            raise VerificationError(f"{tensor.name} is a {kind}, was a {tensor.kind}")
        for field in ("dtype", "device", "requires_grad"):
            if getattr(new, field) != getattr(old, field):
                raise VerificationError(
                    f"{tensor.name}: {field} is {getattr(new, field)}, was {getattr(old, field)}"
                )
        long = [dim for dim, size in enumerate(new.shape) if size > 1]
        if new.layout != old.layout:
            raise VerificationError(
                f"{tensor.name} is stored as {new.layout}, was as {old.layout}: "
                "apply the plan again"
            )
        if new.layout is torch.strided and _order(new, long) != _order(old, long):
            raise VerificationError(
                f"{tensor.name}: its memory format has changed, strides are {new.stride()}, "
                f"were {old.stride()}"
            )
        if old.is_meta:
            continue
        expected = sliced(analysis.walked.labels[tensor.value], gone, old, tuple(new.shape))
        if not _same_bits(new.detach(), expected.detach()):
            raise VerificationError(f"{tensor.name}: its values are not the kept ones, in order")
    _check_memory(analysis, before, after)
    _check_computed(model, smaller)
    return f"{len(analysis.graph.tensors)} tensors hold exactly the kept values"


def _check_memory(
    analysis: Analysis, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> None:
    """Check for memory shared with the original, or newly shared between tensors of the result."""
    originals = {_storage(old): name for name, old in before.items()}
    owners: dict[int, str] = {}
    for tensor in analysis.graph.tensors:
        name, new = tensor.name, after[tensor.name]
        if new.is_meta or not _parts(new)[-1].numel():
            continue
        if _storage(new) in originals:
            raise VerificationError(
                f"{name} shares memory with the original's {originals[_storage(new)]}"
            )
        other = owners.setdefault(_storage(new), name)
        if _storage(before[other]) != _storage(before[name]):
            raise VerificationError(f"{name} shares memory with {other}, which it did not before")


def _check_computed(model: nn.Module, smaller: nn.Module) -> None:
    """Check tensors computed by hooks: up to date wherever they were, since a run may read them
    directly.
    """
    stale = {masked.full_name for masked in masked_tensors(model) if not masked.up_to_date}
    for masked in masked_tensors(smaller):
        if masked.full_name not in stale and not masked.up_to_date:
            raise VerificationError(
                f"{masked.full_name} is not {masked.original} with its mask; apply the plan again"
            )


_PARTS = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the dense tensors storing a tensor, its values last."""
    names = _PARTS.get(tensor.layout, ())
    return [getattr(tensor.detach(), name)() for name in names] or [tensor]


def _storage(tensor: torch.Tensor) -> int:
    return _parts(tensor)[-1].untyped_storage().data_ptr()


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    # torch.equal takes NaNs as unequal and zeros of both signs as equal, so bits are compared
    pairs = zip(_parts(a), _parts(b), strict=True)
    return all(torch.equal(_bytes_of(mine), _bytes_of(other)) for mine, other in pairs)


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    # a single element counts as contiguous with any stride, but a byte view needs stride 1
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def _order(tensor: torch.Tensor, dims: list[int]) -> list[int]:
    """Return ``dims`` from the outermost in memory to the innermost."""
    strides = tensor.stride()
    return sorted(dims, key=lambda dim: -strides[dim])
