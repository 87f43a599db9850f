"""Mutants of canonical msgpack: a body in, bodies with random edits out.

Where every value of the body lies is found once, so that an edit is a splice of bytes: values are
exchanged for others of the same body or for hostile ones, elements of arrays and maps are deleted
and doubled (their headers say so), integers are written in long forms, bytes are flipped, cut and
inserted.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import msgpack

_SPECIAL = b"\x80\x90\xc0\xc1\xc2\xc4\xc6\xca\xcf\xd3\xdc\xdd\xde\xdf\xff\x01\x00\x7f"
_HOSTILE = [
    msgpack.packb(value)
    for value in (
        None, True, False, 0, 1, -1, 2, 3, 127, 128, 255, 256, 1 << 31, 1 << 47, 1 << 48, 1 << 62,
        (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 0.5, -0.0, float("nan"), float("inf"), "", "a",
        "__class__", "__dict__", "weight", "\u00e9" * 600, "x" * 1024, "x" * 1025, b"", b"\0",
        b"\xff" * 32, b"\0" * 31, [], {}, [0], [[]], [[[[[[1]]]]]], {"a": 1}, {1: 2},
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """Where a value lies; ``head`` is how many bytes of it say what it is and how long."""

    start: int
    stop: int
    head: int
    children: tuple[tuple[int, int], ...] = ()  # of an array or map: each element, with its key


class Mutants:
    """Random edits of one body."""

    def __init__(self, body: bytes, chance: random.Random) -> None:
        self.body, self.chance = body, chance
        self.values: list[Value] = []
        assert self._scan(0) == len(body)
        self.holders = [value for value in self.values if value.children]
        own = {body[value.start : value.stop] for value in self.values}
        self.parts = [*(part for part in own if len(part) < 200), *_HOSTILE]
        self.integers = [
            value
            for value in self.values
            if value.stop == value.start + 1 and body[value.start] < 128
        ]

    def one(self) -> bytes:
        """A body with one edit."""
        kind = self.chance.random()
        if kind < 0.45:
            return self._exchanged()
        if kind < 0.6:
            return self._resized()
        if kind < 0.7:
            return self._counted()
        if kind < 0.75 and self.integers:
            return self._long_form()
        return self._spliced()

    def _exchanged(self) -> bytes:
        value = self.chance.choice(self.values)
        part = self.chance.choice(self.parts)
        return self.body[: value.start] + part + self.body[value.stop :]

    def _resized(self) -> bytes:
        """An element less, or one twice, with a header that says so."""
        holder = self.chance.choice(self.holders)
        start, stop = self.chance.choice(holder.children)
        more = self.chance.random() < 0.5
        count = len(holder.children) + (1 if more else -1)
        elements = self.body[holder.start + holder.head : holder.stop]
        at, to = start - holder.start - holder.head, stop - holder.start - holder.head
        own = elements[at:to]
        elements = elements[:at] + (own + own if more else b"") + elements[to:]
        head = self._header(holder, count)
        return self.body[: holder.start] + head + elements + self.body[holder.stop :]

    def _counted(self) -> bytes:
        """A header that lies about how many elements follow."""
        holder = self.chance.choice(self.holders)
        count = self.chance.choice([0, 1, 2, 15, 16, 255, 65_535, 1 << 20, (1 << 32) - 1])
        head = self._header(holder, count)
        return self.body[: holder.start] + head + self.body[holder.start + holder.head :]

    def _long_form(self) -> bytes:
        value = self.chance.choice(self.integers)
        number = self.body[value.start]
        mark, form = self.chance.choice(
            [(0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"), (0xD0, ">b"), (0xD3, ">q")]
        )
        part = bytes([mark]) + struct.pack(form, number)
        return self.body[: value.start] + part + self.body[value.stop :]

    def _spliced(self) -> bytes:
        body, chance = self.body, self.chance
        at = chance.randrange(len(body))
        kind = chance.randrange(5)
        if kind == 0:
            return body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]
        if kind == 1:
            return body[:at] + bytes([chance.choice(_SPECIAL)]) + body[at + 1 :]
        to = min(len(body), at + chance.randrange(1, 40))
        if kind == 2:
            return body[:at] + body[to:]
        if kind == 3:
            return body[:to] + body[at:]
        return body[:at] + bytes(chance.choices(_SPECIAL, k=3)) + body[at:]

    def _header(self, holder: Value, count: int) -> bytes:
        is_map = self.body[holder.start] & 0xF0 == 0x80 or self.body[holder.start] in (0xDE, 0xDF)
        if count < 16:
            return bytes([(0x80 if is_map else 0x90) | count])
        if count < 1 << 16:
            return bytes([0xDE if is_map else 0xDC]) + struct.pack(">H", count)
        return bytes([0xDF if is_map else 0xDD]) + struct.pack(">I", count)

    def _scan(self, at: int) -> int:
        """Notes the value at a place and all inside it; returns its end."""
        mark = self.body[at]
        if 0x80 <= mark < 0xA0 or mark in (0xDC, 0xDE):
            is_map = mark < 0x90 or mark == 0xDE
            short = mark < 0xA0
            count = mark & 15 if short else struct.unpack_from(">H", self.body, at + 1)[0]
            head = 1 if short else 3
            children, end = [], at + head
            for _ in range(count):
                start = end
                if is_map:
                    end = self._scan(end)
                end = self._scan(end)
                children.append((start, end))
            self.values.append(Value(at, end, head, tuple(children)))
            return end
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.body[at:])
        unpacker.skip()
        end = at + unpacker.tell()
        self.values.append(Value(at, end, 1))
        return end
