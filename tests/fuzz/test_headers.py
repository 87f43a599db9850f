"""R1 and R11: mutants of safetensors headers are refused, or read as the safetensors package reads
them, which is laxer.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from safetensors import SafetensorError, deserialize

from planc.errors import FileError
from planc.files.disk.limits import DEFAULT
from planc.files.tensors.header import Header, parse_header, place, text_length, write_header
from tests.scripts.promises import Goal

PARTS = 8
_SLOW = 1.0  # seconds that no header of this size may take
_ENTRIES = place([("a", "F32", (2, 3)), ("b", "U8", (4,)), ("c", "BF16", ())])
_TEXT = write_header(_ENTRIES, {"format": "pt"})[8:].rstrip()
_DATA = bytes(range(_ENTRIES[-1].stop))
_PARTS = [b"", b"0", b"1", b"9", b"-", b",", b"}", b"{", b"]", b"[", b'"', b" ", b"\\u0000"]
_PARTS += [b"\xff", b"null", b"true", b"1.0", b"U8", b'"a":', b"\\"]


def mutant(chance: random.Random, text: bytes) -> bytes:
    """A header's text with one or two random edits among the characters that matter."""
    for _ in range(chance.choice([1, 1, 2])):
        at, to = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        part = chance.choice([*_PARTS, text[at:to][:40]])
        wide = chance.random() < 0.2
        text = text[:at] + part + text[to if wide else at + chance.randrange(2) :]
    return text


def parse(content: bytes) -> Header:
    length = text_length(content[:9], len(content), DEFAULT)
    return parse_header(content[: 8 + length], len(content), DEFAULT)


@pytest.mark.long
@pytest.mark.promise("R1 headers")
@pytest.mark.parametrize("part", range(PARTS))
def test_mutants_are_refused_or_read_as_safetensors_reads_them(part: int, goal: Goal) -> None:
    chance, outcomes, cases = random.Random(part), Counter[str](), goal.share(PARTS)
    for _ in range(cases):
        text = mutant(chance, _TEXT)
        content = len(text).to_bytes(8, "little") + text + _DATA
        began = time.perf_counter()
        try:
            header = parse(content)
        except FileError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["accepted"] += 1
            check_with_safetensors(content, header)
        assert time.perf_counter() - began < _SLOW
    assert outcomes["MalformedFile"] > cases // 2
    assert outcomes["accepted"] > cases // 100
    goal.count(cases)


def check_with_safetensors(content: bytes, header: Header) -> None:
    """Both readers find the same names, dtypes, shapes and bytes."""
    try:
        other = deserialize(content)
    except SafetensorError as error:  # pragma: no cover
        raise AssertionError(f"only planc reads {content!r}") from error
    assert {name: (t["dtype"], tuple(t["shape"])) for name, t in other} == {
        e.name: (e.dtype, e.shape) for e in header.entries
    }
    for name, t in other:
        [entry] = [e for e in header.entries if e.name == name]
        assert bytes(t["data"]) == _DATA[entry.start : entry.stop]
