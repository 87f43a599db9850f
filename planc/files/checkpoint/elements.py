"""Tensors of torch as elements of safetensors files: dtypes by name, values as bytes."""

from __future__ import annotations

from typing import Any

import torch

from planc.errors import PlancError
from planc.files.disk.stream import Bytes

_ATTRIBUTES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "BF16": "bfloat16",
    "F16": "float16",
    "I16": "int16",
    "U16": "uint16",
    "F32": "float32",
    "I32": "int32",
    "U32": "uint32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}


def dtypes_of(library: Any) -> dict[str, torch.dtype]:
    """Return the dtypes of a torch version by safetensors names; older versions have fewer."""
    return {
        name: getattr(library, attribute)
        for name, attribute in _ATTRIBUTES.items()
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


def bytes_of(tensor: torch.Tensor) -> Bytes:
    """Return the values in C order, as a view of a contiguous CPU tensor's memory or of a copy."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return _as_bytes(plain.reshape(-1))


def memory_of(tensor: torch.Tensor) -> Bytes | None:
    """Return a tensor's writable memory, None unless it is contiguous, on the CPU and not empty."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.numel() == 0:
        return None
    return _as_bytes(tensor.detach().view(-1))


def _as_bytes(flat: torch.Tensor) -> Bytes:
    # a single element is contiguous with any stride, but only stride 1 can be viewed as bytes
    array: Any = flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy()
    return array  # type: ignore[no-any-return]
