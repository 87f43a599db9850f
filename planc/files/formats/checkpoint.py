"""The record in a checkpoint: the plan, and what planc knows of tensors, modules and files.

The record is stored in the metadata of the first shard, in base64, in an envelope of kind
``planc/ckpt``. Every other shard has a short record of kind ``planc/part``. From headers alone they
reveal a shard that is missing, outdated or from another checkpoint. The body of the first is a map:

    metadata   [[name, value]]   the user's, plain data
    modules    [{attributes, path, type}]    rows of ``structural``; types are never imported
    plan       the bytes of the plan file
    requires   [str]    features required of the reader
    shards     [{header, name, size}]    SHA-256 of the header; for the file with this record, of
               the header without it
    structural [[[name, value]]]    the distinct attributes of modules
    tensors    [{dtype, names, role, sha256, shape, shard}]    stored under the first of its names
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.checks import check_unique
from planc.files.formats.envelope import seal, unseal
from planc.files.formats.records import (
    ModuleRecord,
    RecordMap,
    check_features,
    decode_record,
    distinct,
    encode_body,
    nested,
)
from planc.plan.fingerprint import canonical
from planc.plan.plan import Attributes, Digest, Natural, Plan

KEY = "planc"  # the metadata key of the record
ROLES = ("state", "buffer", "optimizer")
_RECORD, _PART = b"planc/ckpt", b"planc/part"
VALUE_DEPTH = 10  # a dictionary in a list in a tuple, each with its tag

if TYPE_CHECKING:
    Value = Any
else:
    Value = nested(VALUE_DEPTH)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint, stored as ``names[0]`` in file ``shard``; all names are tied.

    ``role`` is "state" for an entry of the state dict, "buffer" for a non-persistent buffer, and
    "optimizer" for a tensor of the optimiser. Names of the latter two start with their role.
    """

    names: tuple[str, ...]
    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]
    digest: bytes  # SHA-256 of its bytes
    role: str = "state"
    shard: int = 0

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True)
class StoredModule:
    """A module and its sorted attributes, encoded by :mod:`planc.files.checkpoint.values`."""

    path: str
    type: str  # for messages only
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class StoredShard:
    """A file of a checkpoint; ``header`` is the digest of its header without the record."""

    name: str
    size: Natural
    header: Digest


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The record of a checkpoint: everything except the tensors' values."""

    plan: Plan
    modules: tuple[StoredModule, ...]
    tensors: tuple[StoredTensor, ...]
    shards: tuple[StoredShard, ...]
    metadata: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The record of one shard: its tensors' digests and its origin."""

    plan: bytes  # SHA-256 of the plan file
    source: bytes  # of the header of the shard it was cut from; empty if none
    tensors: tuple[tuple[str, bytes], ...]


class _StoredTensor(RecordMap):
    dtype: str
    names: tuple[str, ...]
    role: str
    sha256: Digest
    shape: tuple[Natural, ...]
    shard: Natural


class _StoredModule(ModuleRecord):
    type: str


class _Record(RecordMap):
    metadata: tuple[tuple[str, Value], ...]
    modules: tuple[_StoredModule, ...]
    plan: bytes
    requires: tuple[str, ...]
    shards: tuple[StoredShard, ...]
    structural: tuple[tuple[tuple[str, Value], ...], ...]
    tensors: tuple[_StoredTensor, ...]


class _PartTensor(RecordMap):
    name: str
    sha256: Digest


class _Part(RecordMap):
    plan: Digest
    requires: tuple[str, ...]
    source: Annotated[bytes, msgspec.Meta(max_length=32)]
    tensors: tuple[_PartTensor, ...]


def encode_checkpoint(
    checkpoint: Checkpoint, *, plan: bytes | None = None, limits: Limits = DEFAULT
) -> str:
    """The record as text for a file's metadata. Its length does not depend on digests.

    Args:
        plan: the bytes of the plan file, if already encoded.

    Raises:
        FileError: the plan or the record is not valid, or exceeds ``limits``.
    """
    numbers, structural = distinct(module.attributes for module in checkpoint.modules)
    body = encode_body(
        {
            "metadata": checkpoint.metadata,
            "modules": [
                {"attributes": number, "path": module.path, "type": module.type}
                for number, module in zip(numbers, checkpoint.modules, strict=True)
            ],
            "plan": encode_plan(checkpoint.plan, limits=limits) if plan is None else plan,
            "requires": (),
            "shards": checkpoint.shards,
            "structural": structural,
            "tensors": [
                {
                    "dtype": t.dtype,
                    "names": t.names,
                    "role": t.role,
                    "sha256": t.digest,
                    "shape": t.shape,
                    "shard": t.shard,
                }
                for t in checkpoint.tensors
            ],
        }
    )
    limits.check("record", len(body), "the checkpoint's record")
    _checked(decode_record(body, _Record), limits)
    return base64.b64encode(seal(_RECORD, body)).decode()


def decode_checkpoint(metadata: Mapping[str, str], *, limits: Limits = DEFAULT) -> Checkpoint:
    """The record in the metadata of a checkpoint's first file.

    Raises:
        FileError: the record is missing, damaged, malformed or too large.
    """
    body = unseal(_RECORD, _sealed(metadata, limits))
    record = decode_record(body, _Record)
    check_features(record.requires)
    _checked(record, limits)
    return Checkpoint(
        plan=decode_plan(record.plan, name="the plan in the record", limits=limits),
        modules=tuple(
            StoredModule(m.path, m.type, record.structural[m.attributes]) for m in record.modules
        ),
        tensors=tuple(
            StoredTensor(t.names, t.dtype, t.shape, t.sha256, t.role, t.shard)
            for t in record.tensors
        ),
        shards=record.shards,
        metadata=record.metadata,
    )


def encode_part(part: Part) -> str:
    """The text for the metadata of a shard without the main record."""
    tensors = [{"name": name, "sha256": digest} for name, digest in part.tensors]
    body = canonical({"plan": part.plan, "requires": (), "source": part.source, "tensors": tensors})
    return base64.b64encode(seal(_PART, body)).decode()


def decode_part(metadata: Mapping[str, str], *, limits: Limits = DEFAULT) -> Part:
    """The part in the metadata of such a shard. Raises like :func:`decode_checkpoint`."""
    record = decode_record(unseal(_PART, _sealed(metadata, limits)), _Part)
    check_features(record.requires)
    check_unique((t.name for t in record.tensors), "tensors")
    for tensor in record.tensors:
        limits.check_name(tensor.name, "tensors")
    return Part(record.plan, record.source, tuple((t.name, t.sha256) for t in record.tensors))


def _sealed(metadata: Mapping[str, str], limits: Limits) -> bytes:
    text = metadata.get(KEY)
    if text is None:
        raise MalformedFile(
            f"the file has no metadata {KEY!r}, so planc did not write it; load it with "
            "safetensors, or apply a plan to it"
        )
    limits.check("record", len(text) // 4 * 3, "the checkpoint's record")
    try:
        sealed = base64.b64decode(text)
    except ValueError as error:
        raise MalformedFile(f"metadata {KEY!r}: {error}; copy the file again") from None
    if base64.b64encode(sealed).decode() != text:  # other characters are skipped, bits ignored
        raise MalformedFile(f"metadata {KEY!r}: not in canonical form; copy the file again")
    return sealed


def _checked(record: _Record, limits: Limits) -> None:
    """Check a record beyond its types.

    Raises:
        MalformedFile, LimitExceeded: a field is invalid; the message names it.
    """
    limits.check("modules", len(record.modules), "modules")
    limits.check("tensors", len(record.tensors), "tensors")
    limits.check("shards", len(record.shards), "shards")
    packed = [len(canonical(row)) for row in record.structural]
    total = 0
    for i, module in enumerate(record.modules):
        limits.check_name(module.path, f"modules[{i}].path")
        limits.check_name(module.type, f"modules[{i}].type")
        if module.attributes >= len(packed):
            raise MalformedFile(
                f"modules[{i}].attributes: row {module.attributes} of {len(packed)}; save again"
            )
        total += packed[module.attributes]
    limits.check("attribute_bytes", total, "modules")
    check_unique((module.path for module in record.modules), "modules")
    for row in record.structural:
        check_unique((name for name, _ in row), "structural")
        for name, _ in row:
            limits.check_name(name, "structural")
    for i, tensor in enumerate(record.tensors):
        where = f"tensors[{i}]"
        if not tensor.names or tensor.role not in ROLES or tensor.shard >= len(record.shards):
            raise MalformedFile(
                f"{where}: names {tensor.names[:2]}, role {tensor.role[:20]!r}, shard "
                f"{tensor.shard} of {len(record.shards)}; save again"
            )
        for name in tensor.names:
            limits.check_name(name, f"{where}.names")
        limits.check_shape(tensor.shape, where)
    check_unique((name for tensor in record.tensors for name in tensor.names), "tensors")
    check_unique((shard.name for shard in record.shards), "shards")
    if not record.shards:
        raise MalformedFile("shards: none; save again")


def plan_value(value: Any) -> Any:
    """A value of a plan in the record's form, with tuples tagged."""
    return ("tuple", *map(plan_value, value)) if isinstance(value, tuple) else value
