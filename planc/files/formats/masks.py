"""Mask files: a :class:`planc.maskplan.MaskPlan` in, a canonical body out, and back.

The envelope is that of plans, with the kind ``planc/mask``. The body is a map of

    masks       [{removed, tensor}]   ``tensor`` is a row of the table of tensors, ascending;
                ``removed`` a bitmap of ceil(elements / 8) bytes in C order, lowest bit first, of
                which some bit is set and those after the last element are not
    provenance  [{criterion, policy, seed, versions}]
    requires    [str]
    tensors     [{kind, names, shape}], all parameters and buffers of the model

A bitmap is as large in memory as in the file, so a file of n bytes costs a small multiple of n.
"""

from __future__ import annotations

import math

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checks import check_provenance, check_tensors
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import (
    Natural,
    ProvenanceRecord,
    RecordMap,
    TensorRecord,
    check_features,
    decode_record,
)
from planc.plan.arguments import a_digest, a_path, takes
from planc.plan.fingerprint import canonical
from planc.plan.masks import MaskPlan, TensorMask, bytes_of, masks_given
from planc.plan.plan import Provenance, TensorSpec

KIND = b"planc/mask"
_AGAIN = "make the mask plan again"


class MaskRecord(RecordMap):
    removed: bytes
    tensor: Natural  # row of the table of tensors


class MaskPlanRecord(RecordMap):
    masks: tuple[MaskRecord, ...]
    provenance: tuple[ProvenanceRecord, ...]
    requires: tuple[str, ...]
    tensors: tuple[TensorRecord, ...]


@takes(masks=masks_given, path=a_path, limits=limits_given)
def save_masks(masks: MaskPlan, path: Path, *, limits: Limits = DEFAULT) -> None:
    """Writes a mask plan to a file; see :func:`planc.codec.save_plan`."""
    _MASKS.save(masks, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_masks(path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT) -> MaskPlan:
    """Reads a mask plan that :func:`save_masks` wrote; see :func:`planc.codec.load_plan`."""
    return _MASKS.load(path, sha256, limits)


def encode_masks(masks: MaskPlan, *, limits: Limits = DEFAULT) -> bytes:
    """The content of the file of a mask plan; see :func:`planc.codec.encode_plan`."""
    return _MASKS.encode(masks, limits)


def decode_masks(
    content: bytes,
    *,
    name: str = "the mask plan",
    sha256: str | None = None,
    limits: Limits = DEFAULT,
) -> MaskPlan:
    """The mask plan in the content of a file; see :func:`planc.codec.decode_plan`."""
    return _MASKS.decode(content, name, sha256, limits)


def to_body(masks: MaskPlan) -> bytes:
    """The canonical body of a mask plan. Nothing is checked here but what packing needs."""
    row = {spec.name: i for i, spec in enumerate(masks.tensors)}
    return canonical(
        {
            "masks": [
                {"removed": mask.removed, "tensor": row[mask.tensor]} for mask in masks.masks
            ],
            "provenance": [
                {
                    "criterion": p.criterion,
                    "policy": p.policy,
                    "seed": p.seed,
                    "versions": p.versions,
                }
                for p in masks.provenance
            ],
            "requires": masks.requires,
            "tensors": [
                {"kind": spec.kind, "names": spec.names, "shape": spec.shape}
                for spec in masks.tensors
            ],
        }
    )


def from_body(body: bytes, limits: Limits) -> MaskPlan:
    """The mask plan of a body, every field checked against the others.

    Raises:
        UnsupportedVersion: it requires a feature that this reader does not have.
        LimitExceeded: something in it is larger than ``limits``.
        MalformedFile: not canonical, or a field contradicts another; both are named.
    """
    record = decode_record(body, MaskPlanRecord)
    check_features(record.requires)
    tensors = tuple(TensorSpec(t.names, t.shape, t.kind) for t in record.tensors)
    check_tensors(tensors, limits)
    before = -1
    for i, mask in enumerate(record.masks):
        where = f"masks[{i}]"
        if not before < mask.tensor < len(tensors):
            raise MalformedFile(
                f"{where}.tensor: row {mask.tensor} after row {before} of {len(tensors)}; {_AGAIN}"
            )
        before = mask.tensor
        _check_bitmap(mask.removed, tensors[mask.tensor], f"{where}.removed")
    provenance = tuple(
        Provenance(p.criterion, p.policy, p.seed, p.versions) for p in record.provenance
    )
    check_provenance(provenance, limits)
    masks = tuple(TensorMask(tensors[mask.tensor].name, mask.removed) for mask in record.masks)
    return MaskPlan(tensors, masks, provenance, record.requires)


def _check_bitmap(removed: bytes, spec: TensorSpec, where: str) -> None:
    size = math.prod(spec.shape)
    if len(removed) != bytes_of(size):
        raise MalformedFile(
            f"{where}: {len(removed)} bytes, the {size} elements of {spec.name} need "
            f"{bytes_of(size)}; {_AGAIN}"
        )
    if not any(removed):
        raise MalformedFile(
            f"{where}: {spec.name} loses nothing and should not be listed; {_AGAIN}"
        )
    if size % 8 and removed[-1] >> size % 8:
        raise MalformedFile(f"{where}: padding after element {size} is not zero; {_AGAIN}")


_MASKS = Format(KIND, "mask plan", to_body, from_body)
