"""Differences of two mask plans: two plans in, how many elements each removes alone out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planc.plan.fingerprint import first_difference
from planc.plan.masks import MaskPlan, TensorMask
from planc.plan.plan import Provenance


@dataclass(frozen=True, slots=True)
class TensorMaskDiff:
    """How many elements of a tensor only a removes, only b removes, and both remove."""

    name: str
    only_a: int
    only_b: int
    both: int


@dataclass(frozen=True, slots=True)
class MaskPlanDiff:
    """How mask plan a and mask plan b differ; false if they are equal.

    ``source`` is the first difference between the tensors the plans were made for, None if they
    are the same. ``tensors`` are those with unlike masks, ``removed`` all elements that go.
    """

    source: str | None
    tensors: tuple[TensorMaskDiff, ...]
    removed: tuple[int, int]
    provenance: tuple[tuple[Provenance, ...], tuple[Provenance, ...]] | None
    others: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.source or self.tensors or self.provenance or self.others)

    def to_json(self) -> dict[str, Any]:
        """The same as plain data: dictionaries, lists, numbers, strings and None."""
        return {
            "equal": not self,
            "source": self.source,
            "tensors": [
                {"name": t.name, "only_a": t.only_a, "only_b": t.only_b, "both": t.both}
                for t in self.tensors
            ],
            "removed": list(self.removed),
            "provenance": self.provenance
            and [
                [
                    {
                        "criterion": p.criterion,
                        "policy": p.policy,
                        "seed": p.seed,
                        "versions": [list(pair) for pair in p.versions],
                    }
                    for p in side
                ]
                for side in self.provenance
            ],
            "others": list(self.others),
        }


def diff_masks(a: MaskPlan, b: MaskPlan) -> MaskPlanDiff:
    """What differs between two mask plans; tensors are matched by their first names."""
    others = [
        name
        for name, unlike in (
            ("requires", a.requires != b.requires),
            ("order of tensors", a.tensors != b.tensors),
        )
        if unlike
    ]
    pairs = (
        (name, a.by_name.get(name), b.by_name.get(name))
        for name in dict.fromkeys([*a.by_name, *b.by_name])
    )
    return MaskPlanDiff(
        source=first_difference(a.tensors, None, b.tensors),
        tensors=tuple(
            _tensor(name, mine, theirs, _shape(a, name) == _shape(b, name))
            for name, mine, theirs in pairs
            if mine != theirs or _shape(a, name) != _shape(b, name)
        ),
        removed=(a.removed, b.removed),
        provenance=(a.provenance, b.provenance) if a.provenance != b.provenance else None,
        others=tuple(others),
    )


def _tensor(name: str, a: TensorMask | None, b: TensorMask | None, alike: bool) -> TensorMaskDiff:
    in_a, in_b = (int.from_bytes(mask.removed, "little") if mask else 0 for mask in (a, b))
    both = (in_a & in_b).bit_count() if alike else 0  # elements of unlike tensors are not the same
    return TensorMaskDiff(name, in_a.bit_count() - both, in_b.bit_count() - both, both)


def _shape(masks: MaskPlan, name: str) -> tuple[int, ...] | None:
    spec = masks.specs.get(name)
    return None if spec is None else spec.shape
