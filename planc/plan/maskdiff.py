"""Differences of two mask plans: counts of the elements removed by only one of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from planc.plan.fingerprint import first_difference
from planc.plan.masks import MaskPlan
from planc.plan.plan import Provenance


@dataclass(frozen=True, slots=True)
class TensorMaskDiff:
    """The numbers of elements of a tensor removed by a only, by b only, and by both."""

    name: str
    only_a: int
    only_b: int
    both: int


@dataclass(frozen=True, slots=True)
class MaskPlanDiff:
    """The differences of mask plan a and mask plan b; false if they are equal.

    ``source`` is the first difference between the plans' tensors, None if they are the same.
    ``tensors`` are those with unlike masks, ``removed`` the numbers of all removed elements.
    """

    source: str | None
    tensors: tuple[TensorMaskDiff, ...]
    removed: tuple[int, int]
    provenance: tuple[tuple[Provenance, ...], tuple[Provenance, ...]] | None
    others: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.source or self.tensors or self.provenance or self.others)

    def to_json(self) -> dict[str, Any]:
        """The differences as plain data: dictionaries, lists, numbers, strings and None."""
        return {"equal": not self, **plain(self)}


def plain(value: Any) -> Any:
    """Plain data of nested dataclasses: a dictionary for each, a list for each tuple, digests in
    hexadecimal.
    """
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value.hex() if isinstance(value, bytes) else value


def diff_masks(a: MaskPlan, b: MaskPlan) -> MaskPlanDiff:
    """The differences of two mask plans; tensors are matched by their first names."""
    others = {"requires": a.requires != b.requires, "order of tensors": a.tensors != b.tensors}
    names = dict.fromkeys([*a.by_name, *b.by_name])
    found = (_tensor(name, a, b) for name in names)
    return MaskPlanDiff(
        source=first_difference(a.tensors, None, b.tensors),
        tensors=tuple(entry for entry in found if entry is not None),
        removed=(a.removed, b.removed),
        provenance=(a.provenance, b.provenance) if a.provenance != b.provenance else None,
        others=tuple(name for name, unlike in others.items() if unlike),
    )


def _tensor(name: str, a: MaskPlan, b: MaskPlan) -> TensorMaskDiff | None:
    masks = a.by_name.get(name), b.by_name.get(name)
    alike = _shape(a, name) == _shape(b, name)
    if alike and masks[0] == masks[1]:
        return None
    in_a, in_b = (int.from_bytes(mask.removed, "little") if mask else 0 for mask in masks)
    both = (in_a & in_b).bit_count() if alike else 0  # unlike tensors share no elements
    return TensorMaskDiff(name, in_a.bit_count() - both, in_b.bit_count() - both, both)


def _shape(masks: MaskPlan, name: str) -> tuple[int, ...] | None:
    spec = masks.specs.get(name)
    return None if spec is None else spec.shape
