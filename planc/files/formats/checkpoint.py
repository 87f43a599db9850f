"""The record in a checkpoint: what planc knows of its tensors, modules and files in, bytes out, and
back.

The record stands in the metadata of the first shard, in base64, in an envelope of kind
``planc/ckpt``; every other shard has a short one of kind ``planc/part``. From headers alone they
tell a shard that is missing, older or of another checkpoint. The body of the first is a map of

    metadata   [[name, value]]   the user's, plain data
    modules    [{attributes, path, type}]    rows of ``structural``; types are never imported
    plan       the plan file's own bytes
    requires   [str]    features a reader must know
    shards     [{header, name, size}]    SHA-256 of the header; of the file with this record, of
               what its header is without it
    structural [[[name, value]]]    the distinct attributes of modules
    tensors    [{dtype, names, role, sha256, shape, shard}]    stored under the first of its names
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.checks import check_name, check_unique
from planc.files.formats.envelope import seal, unseal
from planc.files.formats.records import (
    Digest,
    ModuleRecord,
    Natural,
    RecordMap,
    check_features,
    decode_record,
    nested,
)
from planc.plan.fingerprint import canonical
from planc.plan.plan import Attributes, Plan

KEY = "planc"  # of the record in a file's metadata
ROLES = ("state", "buffer", "optimizer")
_RECORD, _PART = b"planc/ckpt", b"planc/part"
VALUE_DEPTH = 10  # a dictionary in a list in a tuple, each with its tag

if TYPE_CHECKING:
    Value = Any
else:
    Value = nested(VALUE_DEPTH)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint: under ``names[0]`` in file ``shard``, all names being tied.

    ``role`` is "state" for what a state dict has, "buffer" for a buffer that it leaves out,
    "optimizer" for a tensor of the optimiser; names of the latter two begin with their role.
    """

    names: tuple[str, ...]
    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]
    digest: bytes  # SHA-256 of its bytes
    role: str = "state"
    shard: int = 0

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class StoredModule:
    """A module with its attributes, sorted by name, in the form of :mod:`planc.codec.values`."""

    path: str
    type: str  # for messages only
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class StoredShard:
    """A file of a checkpoint; ``header`` is the digest of its header, without the record."""

    name: str
    size: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that a checkpoint says of itself, without its tensors' values."""

    plan: Plan
    modules: tuple[StoredModule, ...]
    tensors: tuple[StoredTensor, ...]
    shards: tuple[StoredShard, ...]
    metadata: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one shard says of itself: its tensors' digests, and what it was made of."""

    plan: bytes  # SHA-256 of the plan file
    source: bytes  # of the header of the shard that it was cut from, empty if from none
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


class _StoredShard(RecordMap):
    header: Digest
    name: str
    size: Natural


class _Record(RecordMap):
    metadata: tuple[tuple[str, Value], ...]
    modules: tuple[_StoredModule, ...]
    plan: bytes
    requires: tuple[str, ...]
    shards: tuple[_StoredShard, ...]
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
        plan: the content of the plan's file, where it is at hand.

    Raises:
        FileError: the plan or the record is not valid, or larger than ``limits``.
    """
    rows: dict[bytes, tuple[int, Attributes]] = {}
    modules = []
    for module in checkpoint.modules:
        row, _ = rows.setdefault(canonical(module.attributes), (len(rows), module.attributes))
        modules.append({"attributes": row, "path": module.path, "type": module.type})
    body = canonical(
        {
            "metadata": checkpoint.metadata,
            "modules": modules,
            "plan": encode_plan(checkpoint.plan, limits=limits) if plan is None else plan,
            "requires": (),
            "shards": [
                {"header": s.header, "name": s.name, "size": s.size} for s in checkpoint.shards
            ],
            "structural": [attributes for _, attributes in rows.values()],
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
        FileError: there is none, or it is damaged, malformed or too large.
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
        shards=tuple(StoredShard(s.name, s.size, s.header) for s in record.shards),
        metadata=record.metadata,
    )


def encode_part(part: Part) -> str:
    """The text for the metadata of a shard that does not have the record."""
    tensors = [{"name": name, "sha256": digest} for name, digest in part.tensors]
    body = canonical({"plan": part.plan, "requires": (), "source": part.source, "tensors": tensors})
    return base64.b64encode(seal(_PART, body)).decode()


def decode_part(metadata: Mapping[str, str], *, limits: Limits = DEFAULT) -> Part:
    """What the metadata of such a shard says. Raises as :func:`decode_checkpoint` does."""
    record = decode_record(unseal(_PART, _sealed(metadata, limits)), _Part)
    check_features(record.requires)
    check_unique((t.name for t in record.tensors), "tensors")
    for tensor in record.tensors:
        check_name(tensor.name, "tensors", limits)
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
    """What the record must satisfy beyond its types.

    Raises:
        MalformedFile, LimitExceeded: it does not; names the field.
    """
    limits.check("modules", len(record.modules), "modules")
    limits.check("tensors", len(record.tensors), "tensors")
    limits.check("shards", len(record.shards), "shards")
    packed = [len(canonical(row)) for row in record.structural]
    total = 0
    for i, module in enumerate(record.modules):
        check_name(module.path, f"modules[{i}].path", limits)
        check_name(module.type, f"modules[{i}].type", limits)
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
            check_name(name, "structural", limits)
    for i, tensor in enumerate(record.tensors):
        where = f"tensors[{i}]"
        if not tensor.names or tensor.role not in ROLES or tensor.shard >= len(record.shards):
            raise MalformedFile(
                f"{where}: names {tensor.names[:2]}, role {tensor.role[:20]!r}, shard "
                f"{tensor.shard} of {len(record.shards)}; save again"
            )
        for name in tensor.names:
            check_name(name, f"{where}.names", limits)
        limits.check("rank", len(tensor.shape), where)
        limits.check("elements", math.prod(tensor.shape), where)
    check_unique((name for tensor in record.tensors for name in tensor.names), "tensors")
    check_unique((shard.name for shard in record.shards), "shards")
    if not record.shards:
        raise MalformedFile("shards: none; save again")


def plan_value(value: Any) -> Any:
    """A value of a plan in the form of the record, where a tuple says that it is one."""
    return ("tuple", *map(plan_value, value)) if isinstance(value, tuple) else value
