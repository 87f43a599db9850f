"""Tensors of torch and the elements of safetensors files: dtypes by name, values as bytes."""

from __future__ import annotations

from typing import Any

import torch

from planc.errors import PlancError
from planc.files.tensors.reader import Bytes

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
    """The dtypes that a version of torch has, by their names; older ones have fewer."""
    return {
        name: getattr(library, attribute)
        for name, attribute in _ATTRIBUTES.items()
        if hasattr(library, attribute)
    }


DTYPES = dtypes_of(torch)
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(tensor: torch.Tensor, name: str) -> str:
    """What safetensors calls the dtype of a tensor.

    Raises:
        PlancError: it has no name for it, or the tensor is not an ordinary one.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise PlancError(f"{name}: a {tensor.layout} tensor cannot be saved; make it a dense one")
    if tensor.is_meta:
        raise PlancError(f"{name}: is on the meta device and has no values to save")
    return name_of(tensor.dtype, name)


def name_of(dtype: torch.dtype, tensor: str) -> str:
    """What safetensors calls a dtype.

    Raises:
        PlancError: it has no name for it.
    """
    if dtype not in _NAMES:
        raise PlancError(f"{tensor}: safetensors has no {dtype}; convert it")
    return _NAMES[dtype]


def torch_dtype(name: str, tensor: str) -> torch.dtype:
    """The dtype that safetensors calls ``name``.

    Raises:
        PlancError: this torch has none.
    """
    if name not in DTYPES:
        raise PlancError(f"{tensor}: torch {torch.__version__} has no dtype for {name}")
    return DTYPES[name]


def bytes_of(tensor: torch.Tensor) -> Bytes:
    """The values in C order; a view of a contiguous CPU tensor's memory, else of a copy."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return _as_bytes(plain.reshape(-1))


def memory_of(tensor: torch.Tensor) -> Bytes | None:
    """The memory of a tensor to write values in C order into, None if it is not laid out so."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.numel() == 0:
        return None
    return _as_bytes(tensor.detach().view(-1))


def _as_bytes(flat: torch.Tensor) -> Bytes:
    # one element counts as contiguous whatever its stride, and only stride 1 is viewed as bytes
    array: Any = flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy()
    return array  # type: ignore[no-any-return]
