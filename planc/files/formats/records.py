"""The body of a plan file as typed records: hostile bytes in, records in canonical form out.

The body is one msgpack map, every map in it with sorted keys, every value in its shortest form ::

    attributes  [{after, before, module, name}]    what changes: nil, bool, int, float, str, arrays
    constraints [{reason, text}]    what binds widths, for people; nothing obeys it
    cost        {after, before: {bytes, macs, params}}
    groups      [{kind, members, mixing, name, removed, rows, size}]
                members  [{dim, over, runs, tensor}]    tensor: row of the table; over: nil or
                         [dim, start, stop]; runs: [unit, count, start, step, span, repeats, stride]
                removed  for each row of the group a bitmap of ceil(size / rows / 8) bytes, lowest
                         bit first, the bits after the last unit zero; rows lose equally many
    inputs      the specification of the example inputs (planc.specification)
    modules     [{attributes, path}]    attributes: row of ``structural``, in order of first use
    provenance  [{criterion, policy, seed, versions: [[name, version]]}]
    requires    [str]    features that a reader must know
    result      {attributes, structure, tensors}    SHA-256 of the tables that applying gives
    shapes      SHA-256 of all predicted operators and shapes
    source      {attributes, structure, tensors}    SHA-256 of the tables that it was made for
    structural  [[[name, value]]]    the distinct attributes of modules
    target      "module" or "graph"
    tensors     [{kind, names, shape}]    parameters, then buffers; tied names share a row

Decoding is strict: it stops at the first field that is unknown, missing or of another type, and
nests no deeper than the types do, so that memory stays proportional to the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from planc.errors import MalformedFile, UnsupportedVersion
from planc.files.disk.limits import Limits
from planc.plan.specification import INPUT_VALUES

ATTRIBUTE_DEPTH = 4
INPUTS_DEPTH = 32
_SCALAR: Any = None | bool | int | float | str


# what a plan may require of its reader; a file that requires more is from the future
FEATURES = frozenset({INPUT_VALUES})


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

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Pairs = tuple[tuple[str, Value], ...]


Record = TypeVar("Record", bound=msgspec.Struct)


class RecordMap(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A record written as a map with sorted keys."""


class FingerprintsRecord(RecordMap):
    attributes: Digest
    structure: Digest
    tensors: Digest


class TensorRecord(RecordMap):
    kind: str
    names: tuple[str, ...]
    shape: tuple[Natural, ...]


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


class GroupRecord(RecordMap):
    kind: str
    members: tuple[MemberRecord, ...]
    mixing: str
    name: str
    removed: bytes
    rows: Positive
    size: Positive


class ChangeRecord(RecordMap):
    after: Value
    before: Value
    module: str
    name: str


class ConstraintRecord(RecordMap):
    reason: str
    text: str


class CostRecord(RecordMap):
    bytes: Natural
    macs: Natural
    params: Natural


class CostsRecord(RecordMap):
    after: CostRecord
    before: CostRecord


class ProvenanceRecord(RecordMap):
    criterion: str
    policy: str
    seed: int
    versions: tuple[tuple[str, str], ...]


class _Future(msgspec.Struct):
    requires: tuple[str, ...]


class PlanRecord(RecordMap):
    attributes: tuple[ChangeRecord, ...]
    constraints: tuple[ConstraintRecord, ...]
    cost: CostsRecord
    groups: tuple[GroupRecord, ...]
    inputs: msgspec.Raw  # of type Inputs; what nests is bounded before it is decoded
    modules: tuple[ModuleRecord, ...]
    provenance: tuple[ProvenanceRecord, ...]
    requires: tuple[str, ...]
    result: FingerprintsRecord
    shapes: Digest
    source: FingerprintsRecord
    structural: tuple[Pairs, ...]  # the distinct attributes of modules
    target: str
    tensors: tuple[TensorRecord, ...]


def decode_body(body: bytes) -> PlanRecord:
    """The typed record of the body of a plan, in canonical form.

    Raises:
        MalformedFile: as for :func:`decode_record`.
        UnsupportedVersion: it requires a feature that this reader does not have.
    """
    return decode_record(body, PlanRecord)


def decode_record(body: bytes, kind: type[Record]) -> Record:
    """The typed record of a body in canonical form.

    Raises:
        MalformedFile: not msgpack, a field unknown, missing or of another type, or another
            form of the same record; names the field.
        UnsupportedVersion: it requires a feature that this reader does not have.
    """
    try:
        record: Record = _decode(body, _decoder(kind), "the body")
    except MalformedFile:
        _check_future(body)
        raise
    return record


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type; two threads that make those of one type at once crash in msgspec."""
    with _MAKING:
        return _made(kind)


_MAKING = Lock()


@cache  # it takes longer to make than to use
def _made(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode_inputs(raw: msgspec.Raw, limits: Limits) -> Any:
    """The specification of the example inputs, which may nest.

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
        # neither is the beginning of the other: both are one whole value
        at = next(i for i, (a, b) in enumerate(zip(packed, again, strict=False)) if a != b)
        raise MalformedFile(
            f"{where}: byte {at} is not in canonical form ({packed[at : at + 4].hex(' ')} where "
            f"{again[at : at + 4].hex(' ')} is); write the file with planc"
        )
    return value


def check_features(requires: Iterable[str]) -> None:
    """Raises UnsupportedVersion for a feature that this reader does not have."""
    unknown = [feature for feature in requires if feature not in FEATURES]
    if unknown:
        raise UnsupportedVersion(
            f"requires: the file needs {unknown}, this planc has {sorted(FEATURES)}; "
            "read the file with the planc that wrote it"
        )


def _check_future(body: bytes) -> None:
    """A newer planc may write fields that are unknown here: it then says what it requires."""
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        check_features(_decoder(_Future).decode(body).requires)
