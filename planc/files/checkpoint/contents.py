"""Tensors to be written, each with what the record says of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from planc.files.checkpoint.elements import dtype_name
from planc.files.formats.checkpoint import StoredTensor
from planc.files.tensors.header import nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A tensor to be written, and what the record says of it."""

    tensor: torch.Tensor
    stored: StoredTensor

    @property
    def spec(self) -> tuple[str, str, tuple[int, ...]]:
        return self.stored.name, self.stored.dtype, self.stored.shape

    @property
    def size(self) -> int:
        return nbytes(self.stored.dtype, self.stored.shape)


def content_of(tensor: torch.Tensor, names: tuple[str, ...], role: str) -> Content:
    """The tensor with its entry in the record, whose digest is not known yet."""
    shape = tuple(tensor.shape)
    return Content(
        tensor, StoredTensor(names, dtype_name(tensor, names[0]), shape, bytes(32), role)
    )
