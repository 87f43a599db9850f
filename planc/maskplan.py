"""The mask plan: which single elements of which tensors to remove, as one immutable value.

A structured plan (:mod:`planc.plan`) makes tensors smaller; a mask plan leaves their shapes and
makes elements zero, wherever they are: unstructured and N:M sparsity. Pure data and NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from planc.errors import StalePlan
from planc.fingerprint import canonical, tensors_digest
from planc.plan import Provenance, TensorSpec

Removed = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TensorMask:
    """The elements that one tensor loses: bit ``i`` of ``removed`` (bit ``i % 8`` of byte
    ``i // 8``) stands for element ``i`` in C order; the bits after the last element are zero.
    """

    tensor: str  # the first of its names
    removed: bytes

    @property
    def count(self) -> int:
        """How many elements go."""
        return self.removed.hex().translate(_ONES).count("1") if len(self.removed) < 64 else int(
            np.bitwise_count(np.frombuffer(self.removed, dtype=np.uint8)).sum()
        )
