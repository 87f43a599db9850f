"""Comparable contents of a model's result: tensors, arrays and numbers by place, the rest as text.

Unordered parts of a result, such as sets, are sorted by content.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from planc.errors import VerificationError
from planc.modules.search import PLAIN, Search, is_iterator
from planc.trace.results import Items, handed_back, own_objects


class Contents(list[torch.Tensor]):
    """Tensors of a result, including arrays and numbers as tensors.

    ``places`` holds the place of each; ``texts`` holds the types, strings and integers of the
    result with their places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        self.texts: list[tuple[str, str]] = []

    def name(self, i: int) -> str:
        """Return a description of tensor ``i``."""
        return f"output {i}" if self.places[i] == "result" else f"output {i} ({self.places[i]})"


def contents(model: nn.Module, returned: Any) -> Contents:
    """Return the contents of the value returned by ``model``, without the model's own state and
    objects.
    """
    state = handed_back(model, returned)
    search = Search(
        Items(), lambda part: id(part) in state, own_objects(model), unordered=_in_order
    )
    found = Contents()
    for place, part in search.visit("result", returned):
        tensor = _as_tensor(part)
        if tensor is not None:
            found.append(tensor)
            found.places.append(place)
        if part is not None and "._" not in place and ".<" not in place:
            found.texts.append((place, _as_text(part)))
    return found


def texts_differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Return True if two results differ in parts other than tensors."""
    try:
        compare_texts(some, others, "the other")
    except VerificationError:
        return True
    return False


def compare_texts(outputs: list[torch.Tensor], expected: list[torch.Tensor], what: str) -> None:
    """Compare the parts of two results other than tensors.

    Raises:
        VerificationError: they differ; names the first place.
    """
    if not (isinstance(outputs, Contents) and isinstance(expected, Contents)):
        return
    for (place, here), (other, there) in zip(outputs.texts, expected.texts, strict=False):
        if place != other:
            raise VerificationError(f"the result has {place}, that of {what} {other} in its place")
        if here != there:
            raise VerificationError(f"{place} is {here}, that of {what} {there}")
    if len(outputs.texts) != len(expected.texts):
        counts = len(outputs.texts), len(expected.texts)
        raise VerificationError(f"the result has {counts[0]} parts, that of {what} {counts[1]}")


def _as_tensor(part: Any) -> torch.Tensor | None:
    """Return a tensor of the same content, None if the part is not numeric."""
    if isinstance(part, torch.Tensor):
        return part.detach().clone()
    if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in "biufc":
        return torch.from_numpy(np.array(part))
    if isinstance(part, float) and math.isfinite(part):
        return torch.tensor(part, dtype=torch.float64)
    return None


def _as_text(part: Any) -> str:
    if isinstance(part, bytes | bytearray):  # may encode numbers rounded differently
        return f"{len(part)} bytes"
    if is_iterator(part):
        return "an iterator"
    if isinstance(part, torch.UntypedStorage):
        return f"{part.nbytes()} bytes"
    if isinstance(part, PLAIN) and _as_tensor(part) is None:
        return repr(part)
    return f"a {type(part).__name__}"


def _in_order(unordered: Any) -> list[Any]:
    return sorted(unordered, key=_key)


def _key(part: Any) -> tuple[str, tuple[int, ...], float, str]:
    """Return the sort key of an item, independent of rounding."""
    tensor = _as_tensor(part)
    if tensor is None:
        return type(part).__name__, (), 0.0, repr(part) if isinstance(part, PLAIN) else ""
    flat = tensor.reshape(-1).abs().double()
    mixed = flat * torch.arange(1, flat.numel() + 1, dtype=torch.float64).sqrt()
    return type(part).__name__, tuple(tensor.shape), float(mixed.sum()), ""
