"""Dtypes of torch by their names in safetensors files."""

from __future__ import annotations

from typing import Any

import torch

from planc.errors import PlancError
from planc.files.tensors.header import TORCH_NAMES


def dtypes_of(library: Any) -> dict[str, torch.dtype]:
    """Return the dtypes of a torch version by safetensors names; older versions have fewer."""
    return {
        name: getattr(library, attribute)
        for name, attribute in TORCH_NAMES.items()
        if hasattr(library, attribute)
    }


DTYPES = dtypes_of(torch)
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(tensor: torch.Tensor, name: str) -> str:
    """Return the safetensors name of a tensor's dtype; ``name`` is the tensor's, for messages.

    Raises:
        PlancError: safetensors has no such dtype, or the tensor is not dense or has no values.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise PlancError(f"{name}: a {tensor.layout} tensor cannot be saved; make it a dense one")
    if tensor.is_meta:
        raise PlancError(f"{name}: is on the meta device and has no values to save")
    return name_of(tensor.dtype, name)


def name_of(dtype: torch.dtype, tensor: str) -> str:
    """Return the safetensors name of a dtype; ``tensor`` is a tensor's name, for messages.

    Raises:
        PlancError: safetensors has no such dtype.
    """
    if dtype not in _NAMES:
        raise PlancError(f"{tensor}: safetensors has no {dtype}; convert it")
    return _NAMES[dtype]


def torch_dtype(name: str, tensor: str) -> torch.dtype:
    """Return the dtype with the safetensors name ``name``; ``tensor`` is a tensor's, for messages.

    Raises:
        PlancError: this version of torch has no such dtype.
    """
    if name not in DTYPES:
        raise PlancError(f"{tensor}: torch {torch.__version__} has no dtype for {name}")
    return DTYPES[name]
