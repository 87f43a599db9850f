"""Mask files: reading and writing a :class:`planc.plan.masks.MaskPlan`.

The envelope is the same as for plans, with the kind ``planc/mask``. The body is a map:

    masks       [{removed, tensor}]   ``tensor`` is a row of the table of tensors, ascending;
                ``removed`` a bitmap of ceil(elements / 8) bytes in C order, lowest bit first, with
                some bit set and none after the last element
    provenance  as in a plan; in version 1 criterion, policy, seed and versions only
    requires    [str]
    tensors     [{kind, names, shape}], all parameters and buffers of the model

A bitmap is as large in memory as in the file, so a file of n bytes costs a small multiple of n.
"""

from __future__ import annotations

import math

from msgspec.structs import asdict

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checks import check_provenance, check_tensors
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import (
    ProvenanceRecord1,
    RecordMap,
    check_features,
    decode_record,
    encode_body,
)
from planc.files.formats.versions import provenance_1
from planc.plan.arguments import a_digest, a_path, takes
from planc.plan.masks import MaskPlan, TensorMask, bytes_of, masks_given
from planc.plan.plan import Natural, Provenance, TensorSpec

KIND = b"planc/mask"
_AGAIN = "make the mask plan again"


class MaskRecord(RecordMap):
    removed: bytes
    tensor: Natural  # row of the table of tensors


class MaskPlanRecord1(RecordMap):
    masks: tuple[MaskRecord, ...]
    provenance: tuple[ProvenanceRecord1, ...]
    requires: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]


class MaskPlanRecord(MaskPlanRecord1):
    provenance: tuple[Provenance, ...]  # type: ignore[assignment]  # with more fields


@takes(masks=masks_given, path=a_path, limits=limits_given)
def save_masks(masks: MaskPlan, path: Path, *, limits: Limits = DEFAULT) -> None:
    """Write a mask plan to a file, atomically and durably.

    Raises:
        FileError: the plan is not valid, or exceeds ``limits``; ``path`` is a pipe or device.
        OSError: the file cannot be written.
    """
    MASKS.save(masks, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_masks(path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT) -> MaskPlan:
    """Read a mask plan written by :func:`save_masks`, of this planc or an older one.

    Args:
        path: a regular file; symbolic links are followed.
        sha256: expected SHA-256 of the whole file in hexadecimal; any other file is refused.
        limits: bounds on the file's content.

    Raises:
        FileError: the file is not a mask plan, is damaged or too large.
        OSError: the file cannot be read.
    """
    return MASKS.load(path, sha256, limits)


def to_body(masks: MaskPlan) -> bytes:
    """The canonical body of a mask plan. The plan is not validated here."""
    row = {spec.name: i for i, spec in enumerate(masks.tensors)}
    return encode_body(
        {
            "masks": [{"removed": m.removed, "tensor": row[m.tensor]} for m in masks.masks],
            "provenance": masks.provenance,
            "requires": masks.requires,
            "tensors": masks.tensors,
        }
    )


def from_body(body: bytes, limits: Limits) -> MaskPlan:
    """The mask plan of a body, with every field checked against the others.

    Raises:
        UnsupportedVersion: it requires a feature unknown to this reader.
        LimitExceeded: part of it exceeds ``limits``.
        MalformedFile: not canonical, or two fields contradict each other; both are named.
    """
    return _from_record(decode_record(body, MaskPlanRecord), limits)


def _from_body_1(body: bytes, limits: Limits) -> MaskPlan:
    record = decode_record(body, MaskPlanRecord1)
    renewed = {"provenance": provenance_1(record.provenance)}
    return _from_record(MaskPlanRecord(**asdict(record) | renewed), limits)


def _from_record(record: MaskPlanRecord, limits: Limits) -> MaskPlan:
    check_features(record.requires, known=())  # mask plans have no features
    tensors = record.tensors
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
    check_provenance(record.provenance, limits)
    masks = tuple(TensorMask(tensors[mask.tensor].name, mask.removed) for mask in record.masks)
    return MaskPlan(tensors, masks, record.provenance, record.requires)


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


MASKS = Format(KIND, "mask plan", to_body, from_body, {1: _from_body_1})
encode_masks, decode_masks = MASKS.encode, MASKS.decode
