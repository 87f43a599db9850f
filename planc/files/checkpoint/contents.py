"""Tensors to be written, each with its entry in the record."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from planc.files.checkpoint.elements import dtype_name
from planc.files.formats.checkpoint import StoredTensor
from planc.files.tensors.header import nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A tensor to be written and its entry in the record."""

    tensor: torch.Tensor
    stored: StoredTensor

    @property
    def spec(self) -> tuple[str, str, tuple[int, ...]]:
        return self.stored.name, self.stored.dtype, self.stored.shape

    @property
    def size(self) -> int:
        return nbytes(self.stored.dtype, self.stored.shape)


def content_of(tensor: torch.Tensor, names: tuple[str, ...], role: str) -> Content:
    """Return the tensor with its entry in the record; the digest is zero until it is known."""
    shape = tuple(tensor.shape)
    return Content(
        tensor, StoredTensor(names, dtype_name(tensor, names[0]), shape, bytes(32), role)
    )
