"""The values of torch's tensors as bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]


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
