"""The body of a plan file as typed records, decoded strictly from untrusted bytes.

The body is one msgpack map, every map in it with sorted keys, every value in its shortest form ::

    attributes  [{after, before, module, name}]    changes; nil, bool, int, float, str or arrays
    constraints [{reason, text}]    bounds on widths, for people; nothing obeys them
    cost        {after, before: {bytes, macs, params}}
    groups      [{kind, members, mixing, name, removed, rows, scores, size}]
                members  [{dim, over, runs, tensor}]    tensor: row of the table; over: nil or
                         [dim, start, stop]; runs: [unit, count, start, step, span, repeats, stride]
                removed  for each row of the group a bitmap of ceil(size / rows / 8) bytes, lowest
                         bit first, the bits after the last unit zero; rows lose equally many
                scores   nil, or a finite little-endian float32 for each unit, for people
    inputs      the specification of the example inputs (planc.plan.specification)
    latency     {after, before, machine}    predicted nanoseconds; absent without a latency table
    modules     [{attributes, path}]    attributes: row of ``structural``, in order of first use
    outputs     [{dim, kept, name, size}]    outputs that shrink; kept: a bitmap like removed
    provenance  [{criterion, decisions: [str], origin, policy, seed, statistics, versions:
                [[name, version]], weights}]    digests: nil or SHA-256
    requires    [str]    features required of the reader
    result      {attributes, structure, tensors}    SHA-256 of the tables after applying
    shapes      SHA-256 of all predicted operators and shapes
    source      {attributes, structure, tensors}    SHA-256 of the tables of the source model
    structural  [[[name, value]]]    the distinct attributes of modules
    target      "module" or "graph"
    tensors     [{kind, names, shape}]    parameters, then buffers; tied names share a row

This is format version 2. Version 1 has no ``latency``, no ``scores``, no ``outputs``, and of
``provenance`` criterion, policy, seed and versions.

Decoding is strict: it stops at the first field with an unknown name, missing value or wrong type.
Nesting is bounded by the types, so memory stays proportional to the bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgpack  # type: ignore[import-untyped]  # it ships no types
import msgspec

from planc.errors import MalformedFile, UnsupportedVersion
from planc.files.disk.limits import Limits
from planc.ir.groups import Over, Run
from planc.plan.depth import REMOVED_BLOCKS
from planc.plan.fingerprint import canonical
from planc.plan.plan import (
    Attributes,
    Cost,
    Digest,
    Fingerprints,
    Latency,
    Natural,
    Provenance,
    TensorSpec,
    WidthConstraint,
)
from planc.plan.specification import INPUT_VALUES

ATTRIBUTE_DEPTH = 4
INPUTS_DEPTH = 32
_SCALAR: Any = None | bool | int | float | str


# features known to this reader; a file that requires others was written by a newer planc
FEATURES = frozenset({INPUT_VALUES, REMOVED_BLOCKS})


def nested(depth: int) -> Any:
    """The type of scalars in tuples in tuples ..., ``depth`` deep."""
    if depth == 0:
        return _SCALAR
    return _SCALAR | tuple.__class_getitem__((nested(depth - 1), ...))


if TYPE_CHECKING:
    Value = Any
    Inputs = Any
else:
    Value = nested(ATTRIBUTE_DEPTH)
    Inputs = nested(INPUTS_DEPTH)

Positive = Annotated[int, msgspec.Meta(ge=1)]
Pairs = tuple[tuple[str, Value], ...]


Record = TypeVar("Record", bound=msgspec.Struct)


class RecordMap(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A record written as a map with sorted keys."""


class ModuleRecord(RecordMap):
    attributes: Natural  # row of the table of distinct attributes
    path: str


class RunRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    unit: Natural
    count: Positive
    start: Natural
    step: int
    span: Positive
    repeats: Positive
    stride: Natural


class OverRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    dim: Natural
    start: Natural
    stop: Natural


class MemberRecord(RecordMap):
    dim: Natural
    over: OverRecord | None
    runs: tuple[RunRecord, ...]
    tensor: Natural  # row of the table of tensors


class GroupRecord1(RecordMap):
    kind: str
    members: tuple[MemberRecord, ...]
    mixing: str
    name: str
    removed: bytes
    rows: Positive
    size: Positive


class GroupRecord(GroupRecord1):
    scores: bytes | None


class OutputRecord(RecordMap):
    dim: Natural
    kept: bytes
    name: str
    size: Positive


class ProvenanceRecord1(RecordMap):
    criterion: str
    policy: str
    seed: int
    versions: tuple[tuple[str, str], ...]


class ChangeRecord(RecordMap):
    after: Value
    before: Value
    module: str
    name: str


class CostsRecord(RecordMap):
    after: Cost
    before: Cost


class _Future(msgspec.Struct):
    requires: tuple[str, ...]


class PlanRecord1(RecordMap):
    attributes: tuple[ChangeRecord, ...]
    constraints: tuple[WidthConstraint, ...]
    cost: CostsRecord
    groups: tuple[GroupRecord1, ...]
    inputs: msgspec.Raw  # of type Inputs, bounded before it is decoded
    modules: tuple[ModuleRecord, ...]
    provenance: tuple[ProvenanceRecord1, ...]
    requires: tuple[str, ...]
    result: Fingerprints
    shapes: Digest
    source: Fingerprints
    structural: tuple[Pairs, ...]  # the distinct attributes of modules
    target: str
    tensors: tuple[TensorSpec, ...]


class PlanRecord(PlanRecord1):
    groups: tuple[GroupRecord, ...]
    outputs: tuple[OutputRecord, ...]
    provenance: tuple[Provenance, ...]  # type: ignore[assignment]  # with more fields
    latency: Latency | msgspec.UnsetType = msgspec.UNSET


def encode_body(body: Any) -> bytes:
    """The canonical bytes of a body.

    Plan types become maps with sorted keys; :class:`Run` and :class:`Over` become arrays.

    Raises:
        TypeError, ValueError, OverflowError: msgpack has no form for a value.
    """
    packed: bytes = msgpack.packb(body, default=_plain)
    return packed


def _plain(value: Any) -> Any:
    names = getattr(type(value), "__dataclass_fields__", None)
    if names is None:
        return value  # msgpack raises its own error
    if isinstance(value, Run | Over):
        return tuple(getattr(value, name) for name in names)
    return {name: getattr(value, name) for name in sorted(names)}


def decode_record(body: bytes, kind: type[Record]) -> Record:
    """The typed record of a body in canonical form.

    Raises:
        MalformedFile: not msgpack, not canonical, or a field is unknown, missing or of another
            type; names the field.
        UnsupportedVersion: it requires a feature unknown to this reader.
    """
    try:
        record: Record = _decode(body, _decoder(kind), "the body")
    except MalformedFile:
        _check_future(body)
        raise
    return record


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type. The lock avoids a crash of msgspec in concurrent construction."""
    with _MAKING:
        return _made(kind)


_MAKING = Lock()


@cache  # making a decoder takes longer than using it
def _made(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode_inputs(raw: msgspec.Raw, limits: Limits) -> Any:
    """The specification of the example inputs, with bounded nesting.

    Raises:
        MalformedFile: as for :func:`decode_record`.
        LimitExceeded: it is too long.
    """
    limits.check("inputs", len(bytes(raw)), "inputs")
    return _decode(bytes(raw), _decoder(Inputs), "inputs")


def _decode(packed: bytes, decoder: msgspec.msgpack.Decoder[Any], where: str) -> Any:
    try:
        value = decoder.decode(packed)
        again = msgspec.msgpack.encode(value, order="sorted")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise MalformedFile(f"{where}: {error}; write the file again") from None
    if again != packed:
        # neither is a prefix of the other: both are one whole value
        at = next(i for i, (a, b) in enumerate(zip(packed, again, strict=False)) if a != b)
        raise MalformedFile(
            f"{where}: byte {at} is not in canonical form ({packed[at : at + 4].hex(' ')} where "
            f"{again[at : at + 4].hex(' ')} is); write the file with planc"
        )
    return value


def distinct(rows: Iterable[Attributes]) -> tuple[list[int], list[Attributes]]:
    """The number of each row among the distinct ones, and those, in order of first use.

    Rows are compared by their bytes, because Python calls True, 1 and 1.0 equal.
    """
    found: dict[bytes, tuple[int, Attributes]] = {}
    numbers = [found.setdefault(canonical(row), (len(found), row))[0] for row in rows]
    return numbers, [row for _, row in found.values()]


def check_features(requires: Iterable[str], known: Collection[str] = FEATURES) -> None:
    """Raise UnsupportedVersion for a feature that this reader does not know in such a file."""
    unknown = [feature for feature in requires if feature not in known]
    if unknown:
        raise UnsupportedVersion(
            f"requires: the file needs {unknown}, this planc has {sorted(known)}; "
            "read the file with the planc that wrote it"
        )


def _check_future(body: bytes) -> None:
    """Raise UnsupportedVersion if a newer planc wrote the fields unknown here."""
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        check_features(_decoder(_Future).decode(body).requires)
