"""R4: what a hostile file costs in memory, by Python's own allocator.

A file of n bytes costs at most 1 MiB and 32 n; where values nest at most 1 MiB and 48 n, for a
tuple of one takes a byte in the file and 56 in memory. A file of a kilobyte costs at most 64 KiB.
"""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgpack
import pytest

from planc.errors import FileError
from planc.files.disk.limits import DEFAULT
from planc.files.formats import decode_plan
from planc.files.formats.checkpoint import KEY, decode_checkpoint
from planc.files.formats.conversion import to_body
from planc.files.formats.envelope import seal
from planc.files.tensors.header import parse_header
from planc.ir.groups import Member, Run
from planc.plan.plan import PlanGroup, TensorSpec
from tests.scripts.promises import Goal
from tests.support.strategies import complete, example_plan

MIB = 1 << 20
MANY = 30_000
PARTS = 4
Read = Callable[[bytes], Any]


def peak(read: Read, content: bytes) -> int:
    """The most bytes that Python's allocator held while ``content`` was read or refused."""
    tracemalloc.start()
    with suppress(FileError):
        read(content)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def read_plan(content: bytes) -> Any:
    return decode_plan(content)


def read_header(content: bytes) -> Any:
    """The header of a file that has the header alone."""
    return parse_header(content, len(content), DEFAULT)


def read_record(content: bytes) -> Any:
    """The record in such a header."""
    return decode_checkpoint(read_header(content).metadata)


# plans


def sealed(body: bytes) -> bytes:
    return seal(b"planc/plan", body)


def body_with(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(to_body(example_plan()))
    return body | fields


def body_with_group(**fields: Any) -> dict[str, Any]:
    body = body_with()
    body["groups"][0] |= fields
    return body


def one_group(
    units: int, runs: tuple[Run, ...], removed: tuple[int, ...], scores: bytes | None = None
) -> bytes:
    """The body of a valid plan of one tensor, whose units lie in ``runs``."""
    group = PlanGroup("w:0", "c", units, 1, (Member("w", 0, runs),), "", removed, scores)
    return to_body(complete((TensorSpec(("w",), (units,), "parameter"),), (), (group,), ()))


def member(runs: list[list[int]]) -> dict[str, Any]:
    return {"dim": 0, "over": None, "runs": runs, "tensor": 0}


def group_of(name: str, members: list[Any]) -> dict[str, Any]:
    empty = {"kind": "", "mixing": "", "name": name, "removed": b"\0", "rows": 1, "size": 1}
    return dict(sorted({**empty, "members": members, "scores": None}.items()))


def output(name: str) -> dict[str, Any]:
    return {"dim": 0, "kept": b"\1", "name": name, "size": 2}


def entry(**fields: Any) -> dict[str, Any]:
    empty = {"criterion": "", "decisions": [], "origin": "", "policy": "", "seed": 0}
    return dict(
        sorted(({**empty, "statistics": None, "versions": [], "weights": None} | fields).items())
    )


def tensor(*names: str, shape: list[int]) -> dict[str, Any]:
    return {"kind": "buffer", "names": [*names], "shape": shape}


def change(value: Any) -> dict[str, Any]:
    return {"after": value, "before": value, "module": "", "name": ""}


_UNIT = [0, 1, 0, 1, 1, 1, 0]
PLANS: dict[str, Callable[[], Any]] = {
    "every unit but one": lambda: one_group(1 << 22, (Run(0, 1 << 22, 0, 1),), (*range(1 << 20),)),
    "rows of one unit": lambda: body_with_group(rows=MANY, size=MANY, removed=b"\1" * MANY),
    "rows of nine units": lambda: body_with_group(rows=MANY, size=9 * MANY, removed=b"\1\0" * MANY),
    "runs": lambda: one_group(MANY, tuple(Run(i, 1, MANY - 1 - i, 1) for i in range(MANY)), ()),
    "runs that lose": lambda: one_group(
        MANY, tuple(Run(i, 1, MANY - 1 - i, 1) for i in range(MANY)), tuple(range(1, MANY))
    ),
    "one run often": lambda: body_with_group(members=[member([_UNIT] * MANY)]),
    "members": lambda: body_with_group(members=[member([])] * MANY),
    "members with a run": lambda: body_with_group(members=[member([_UNIT])] * MANY),
    "groups": lambda: body_with(groups=[group_of("", [])] * MANY),
    "groups with members": lambda: body_with(
        groups=[group_of(str(i), [member([_UNIT])]) for i in range(MANY)]
    ),
    "tensors": lambda: body_with(tensors=[tensor(shape=[])] * MANY),
    "tensors with names": lambda: body_with(
        tensors=[tensor(str(i), shape=[1]) for i in range(MANY)]
    ),
    "names": lambda: body_with(tensors=[tensor(*map(str, range(MANY)), shape=[1])]),
    "short names": lambda: body_with(tensors=[tensor(*["a"] * MANY, shape=[1])]),
    "rank": lambda: body_with(tensors=[tensor("a", shape=[300] * MANY)]),
    "modules": lambda: body_with(modules=[{"attributes": 0, "path": ""}] * MANY),
    "modules with paths": lambda: body_with(
        modules=[{"attributes": 0, "path": str(i)} for i in range(MANY)],
        structural=[[]],
        attributes=[],
    ),
    "rows of attributes": lambda: body_with(structural=[[]] * MANY),
    "rows with an attribute": lambda: body_with(
        structural=[[["a", i]] for i in range(MANY)],
        modules=[{"attributes": i, "path": str(i)} for i in range(MANY)],
        attributes=[],
    ),
    "attributes": lambda: body_with(structural=[[["a", 0]] * MANY]),
    "numbers": lambda: body_with(structural=[[["a", [-200] * MANY]]]),
    "floats": lambda: body_with(structural=[[["a", [0.5] * MANY]]]),
    "strings": lambda: body_with(structural=[[["a", ["a"] * MANY]]]),
    "changes": lambda: body_with(attributes=[change(0)] * MANY),
    "constraints": lambda: body_with(constraints=[{"reason": "", "text": ""}] * MANY),
    "provenance": lambda: body_with(provenance=[entry()] * MANY),
    "versions": lambda: body_with(provenance=[entry(versions=[["", ""]] * MANY)]),
    "decisions": lambda: body_with(provenance=[entry(decisions=[""] * MANY)]),
    "outputs": lambda: body_with(outputs=[output(str(i)) for i in range(MANY)]),
    "an output": lambda: body_with(
        outputs=[output("") | {"kept": b"\1" + bytes((1 << 19) - 1), "size": 1 << 22}]
    ),
    "scores": lambda: one_group(MANY, (Run(0, MANY, 0, 1),), (), bytes(4 * MANY)),
    "scores that are not finite": lambda: one_group(
        MANY, (Run(0, MANY, 0, 1),), (), b"\0\0\xc0\x7f" * MANY
    ),
    "requirements": lambda: body_with(requires=[""] * MANY),
    "inputs": lambda: body_with(inputs=[nested(30)] * MANY),
    "a little input": lambda: body_with(inputs=[nested(30)] * 1000),
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NESTED: dict[str, Callable[[], Any]] = {
    "values that nest": lambda: body_with(structural=[[["a", [nested(2)] * MANY]]]),
    "attributes that nest": lambda: body_with(structural=[[["a", nested(3)]] * MANY]),
    "changes that nest": lambda: body_with(attributes=[change([nested(2)] * MANY)]),
}


@pytest.mark.long
@pytest.mark.promise("R4 sizes")
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_costs_memory_as_its_size_does(name: str) -> None:
    body = PLANS[name]()
    content = sealed(body if isinstance(body, bytes) else msgpack.packb(body))
    assert peak(read_plan, content) < MIB + 32 * len(content)


@pytest.mark.promise("R4 sizes")
@pytest.mark.parametrize("name", NESTED)
def test_attributes_that_nest_cost_a_tuple_for_each_byte(name: str) -> None:
    content = sealed(msgpack.packb(NESTED[name]()))
    assert peak(read_plan, content) < MIB + 48 * len(content)


# headers and records


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def entries(many: int) -> str:
    """A valid header of empty tensors."""
    one = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({str(i): one for i in range(many)}, separators=(",", ":"))


HEADERS = {
    "tensors": lambda: entries(20_000),
    "metadata": lambda: json.dumps({"__metadata__": {str(i): "" for i in range(MANY)}}),
    "one text": lambda: json.dumps({"__metadata__": {"a": "x" * MIB}}),
    "objects": lambda: '{"a":[' + ",".join(["{}"] * MANY) + "]}",
    "objects of one": lambda: '{"a":[' + ",".join(['{"":0}'] * MANY) + "]}",
    "arrays": lambda: '{"a":[' + ",".join(["[]"] * MANY) + "]}",
    "arrays of one": lambda: '{"a":[' + ",".join(["[[0]]"] * MANY) + "]}",
    "fields": lambda: "{" + ",".join(f'"{i}":0' for i in range(MANY)) + "}",
    "sizes": lambda: '{"a":[' + ",".join(["300"] * MANY) + "]}",
    "letters": lambda: '{"a":[' + ",".join(['"a"'] * MANY) + "]}",
    "wide letters": lambda: '{"a":"' + "x" * MANY + "\U0001f600" + '"}',
    "no end": lambda: '{"a":' + "[" * MANY,
}


@pytest.mark.promise("R4 sizes")
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_costs_memory_as_its_size_does(name: str) -> None:
    content = header(HEADERS[name]())
    assert peak(read_header, content) < MIB + 32 * len(content)


@pytest.mark.promise("R4 sizes")
def test_arrays_that_nest_in_a_header_cost_a_list_for_two_bytes() -> None:
    content = header('{"a":[' + ",".join(["[[[[[[[[]]]]]]]]"] * MANY) + "]}")
    assert peak(read_header, content) < MIB + 48 * len(content)


def checkpoint_with(**fields: Any) -> bytes:
    """A file of a record alone, which begins as a valid one does."""
    empty: dict[str, Any] = {
        field: [] for field in ("metadata", "modules", "requires", "shards", "structural")
    }
    body = dict(sorted({**empty, "plan": b"", "tensors": [], **fields}.items()))
    text = base64.b64encode(seal(b"planc/ckpt", msgpack.packb(body))).decode()
    return header(json.dumps({"__metadata__": {KEY: text}}))


_STORED = {"dtype": "U8", "names": [], "role": "", "sha256": bytes(32), "shape": [], "shard": 0}
RECORDS = {
    "tensors": lambda: checkpoint_with(tensors=[_STORED] * MANY),
    "modules": lambda: checkpoint_with(modules=[{"attributes": 0, "path": "", "type": ""}] * MANY),
    "shards": lambda: checkpoint_with(shards=[{"header": bytes(32), "name": "", "size": 0}] * MANY),
    "attributes": lambda: checkpoint_with(structural=[[["a", 0]] * MANY]),
    "a plan": lambda: checkpoint_with(plan=bytes(4 * MIB)),
}


@pytest.mark.promise("R4 sizes")
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_costs_memory_as_its_file_does(name: str) -> None:
    content = RECORDS[name]()
    assert peak(read_record, content) < MIB + 32 * len(content)


@pytest.mark.promise("R4 sizes")
def test_a_record_that_nests_costs_a_tuple_for_each_byte() -> None:
    content = checkpoint_with(metadata=[["a", nested(9)]] * MANY)
    assert peak(read_record, content) < MIB + 48 * len(content)


# a kilobyte


def hostile_kilobytes(cases: int, seed: int) -> Iterator[tuple[Read, bytes]]:
    """Files of a kilobyte that begin as valid ones do, and go on with what nests and what lies."""
    chance = random.Random(seed)
    alphabet = bytes([0x80, 0x90, 0x91, 0xC1, 0xC4, 0xC6, 0xD3, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF, 0])
    body = to_body(example_plan())
    text = entries(20)[:-1]
    symbols = ["{", "[", "]", "}", '"a":', '"', ",", "0", "9", '"shape":', '"U8"', "\\u0000"]
    for number in range(cases):
        if number % 4 < 3:
            at = chance.randrange(600)
            part = bytes(chance.choices(alphabet, k=chance.choice([1, 4]))) * 1000
            tail = part if number % 2 else bytes(chance.choices(alphabet, k=1000))
            yield read_plan, sealed((body[:at] + tail)[:970])
        else:
            at = chance.randrange(900)
            part = "".join(chance.choices(symbols, k=chance.choice([1, 2, 900])))
            yield read_header, header((text[:at] + part * 1000)[:1000])


@pytest.mark.promise("R4 kilobytes")
@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_kilobytes_stay_below_64_kib(part: int, goal: Goal) -> None:
    cases = goal.share(PARTS)
    worst = max(peak(read, content) for read, content in hostile_kilobytes(cases, part))
    assert worst < 64 << 10
    goal.count(cases)
