"""The mask plan: single elements of tensors to remove, as one immutable value.

A structured plan (:mod:`planc.plan.plan`) makes tensors smaller; a mask plan keeps their shapes and
sets elements to zero: unstructured and N:M sparsity. Pure data and NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planc.errors import StalePlan
from planc.plan.arguments import instance
from planc.plan.fingerprint import TensorLike, first_difference, tensors_digest
from planc.plan.plan import Provenance, TensorSpec

Elements = NDArray[np.bool_]
"""Boolean mask of a tensor's shape."""


@dataclass(frozen=True, slots=True)
class TensorMask:
    """The removed elements of a tensor, at least one.

    Bit ``i % 8`` of byte ``i // 8`` of ``removed`` stands for element ``i`` in C order; bits after
    the last element are zero.
    """

    tensor: str  # the first of its names
    removed: bytes

    @property
    def count(self) -> int:
        """The number of removed elements."""
        return int.from_bytes(self.removed, "little").bit_count()


@dataclass(frozen=True)
class MaskPlan:
    """An immutable plan of element-wise removals.

    ``tensors`` are all parameters and buffers of the source model, ``masks`` those with removed
    elements, in the same order. ``a | b``, ``a & b`` and ``a - b`` are the plans with the removals
    of either, of both, or of ``a`` only.
    """

    tensors: tuple[TensorSpec, ...]
    masks: tuple[TensorMask, ...]
    provenance: tuple[Provenance, ...] = ()
    requires: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The identity of the source model's tensors, as hexadecimal SHA-256."""
        return tensors_digest(self.tensors).hex()

    def __repr__(self) -> str:
        return f"<MaskPlan {self.fingerprint[:8]}: {self}>"

    def __str__(self) -> str:
        tensors = f"{len(self.masks):,} of {len(self.tensors):,} tensors"
        return f"{self.removed:,} of {self.size:,} elements of {tensors} removed"

    @cached_property
    def by_name(self) -> dict[str, TensorMask]:
        """The masks by the first names of their tensors."""
        return {mask.tensor: mask for mask in self.masks}

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors by all their names."""
        return {name: spec for spec in self.tensors for name in spec.names}

    @property
    def removed(self) -> int:
        """The number of removed elements."""
        return sum(mask.count for mask in self.masks)

    @property
    def size(self) -> int:
        """The number of elements of all masked tensors."""
        return sum(math.prod(self.specs[mask.tensor].shape) for mask in self.masks)

    def elements(self, name: str) -> Elements:
        """Boolean mask of a tensor's shape, True at removed elements.

        Args:
            name: any name of a tensor of the source model.

        Raises:
            StalePlan: the plan knows no such tensor.
        """
        if name not in self.specs:
            raise StalePlan(
                f"{name}: the mask plan was made for a model without such a tensor; name one of "
                f"its {len(self.tensors)} tensors"
            )
        spec = self.specs[name]
        mask = self.by_name.get(spec.name)
        return unpacked(b"" if mask is None else mask.removed, spec.shape)

    def __or__(self, other: MaskPlan) -> MaskPlan:
        return self._with(other, np.bitwise_or)

    def __and__(self, other: MaskPlan) -> MaskPlan:
        return self._with(other, np.bitwise_and)

    def __sub__(self, other: MaskPlan) -> MaskPlan:
        return self._with(other, lambda a, b: a & ~b)

    def _with(self, other: MaskPlan, combine: Callable[..., NDArray[np.uint8]]) -> MaskPlan:
        if not isinstance(other, MaskPlan):
            return NotImplemented
        difference = first_difference(self.tensors, None, other.tensors)
        if difference is not None:
            raise StalePlan(
                f"the mask plans are for different models: {difference}; combine plans for one"
            )
        combined = {}
        for spec in self.tensors:
            mine, theirs = self.by_name.get(spec.name), other._mask_of(spec)
            if mine is not None or theirs is not None:
                length = bytes_of(math.prod(spec.shape))
                sides = (
                    np.frombuffer(side.removed if side else bytes(length), dtype=np.uint8)
                    for side in (mine, theirs)
                )
                combined[spec.name] = combine(*sides).tobytes()
        return MaskPlan(self.tensors, _masks(self.tensors, combined), _joined(self, other))

    def _mask_of(self, spec: TensorSpec) -> TensorMask | None:
        return next((self.by_name[name] for name in spec.names if name in self.by_name), None)


def mask_plan(
    tensors: tuple[TensorSpec, ...],
    removed: Mapping[str, Elements],
    provenance: tuple[Provenance, ...] = (),
) -> MaskPlan:
    """Make a mask plan of boolean arrays of removed elements.

    Args:
        tensors: all parameters and buffers of the model.
        removed: arrays of the tensors' shapes, by any of their names; True removes the element.
        provenance: the origin of the removals.

    Raises:
        StalePlan: there is no such tensor, or it has another shape; both are named.
    """
    specs = {name: spec for spec in tensors for name in spec.names}
    packed: dict[str, bytes] = {}
    for name, elements in removed.items():
        if name not in specs:
            raise StalePlan(f"{name}: a mask for a tensor that the model does not have")
        spec = specs[name]
        if elements.shape != spec.shape or elements.dtype != np.bool_:
            raise StalePlan(
                f"{name}: a mask of {elements.dtype}{list(elements.shape)} for a tensor of shape "
                f"{list(spec.shape)}; give truth values in the tensor's shape"
            )
        bits = np.packbits(elements.reshape(-1), bitorder="little").tobytes()
        if packed.setdefault(spec.name, bits) != bits:
            raise StalePlan(f"{name}: is tied to {spec.name}, which has another mask")
    return MaskPlan(tensors, _masks(tensors, packed), provenance)


def unpacked(removed: bytes, shape: tuple[int, ...]) -> Elements:
    """Boolean array of a bitmap; empty bytes stand for all False."""
    size = math.prod(shape)
    if not removed:
        return np.zeros(shape, dtype=bool)
    bits = np.unpackbits(np.frombuffer(removed, dtype=np.uint8), count=size, bitorder="little")
    return bits.view(np.bool_).reshape(shape)


def bytes_of(size: int) -> int:
    """The length of the bitmap of ``size`` elements."""
    return -(-size // 8)


def check_masked(masks: MaskPlan, tensors: tuple[TensorLike, ...]) -> None:
    """Check the tensors against those of the mask plan's source.

    Raises:
        StalePlan: they differ; the first difference is named.
    """
    difference = first_difference(masks.tensors, None, tensors)
    if difference is not None:
        raise stale_masks(difference)


def stale_masks(difference: str) -> StalePlan:
    """The error for a mask plan of other tensors."""
    return StalePlan(
        f"the mask plan was made for other tensors: {difference}; make one for this model"
    )


def _masks(tensors: tuple[TensorSpec, ...], packed: Mapping[str, bytes]) -> tuple[TensorMask, ...]:
    """The nonempty masks, in the order of the table."""
    return tuple(
        TensorMask(spec.name, packed[spec.name])
        for spec in tensors
        if any(packed.get(spec.name, b""))
    )


def _joined(a: MaskPlan, b: MaskPlan) -> tuple[Provenance, ...]:
    return tuple(dict.fromkeys(a.provenance + b.provenance))


masks_given = instance(
    "a planc.MaskPlan", MaskPlan, advice="give what planc.masks.select or planc.load_masks returns"
)
