"""Mutants of canonical msgpack: a body in, bodies with random edits out.

Where every value of the body lies is found once, so that an edit is a splice of bytes: values are
exchanged for others of the same body or for hostile ones, elements of arrays and maps are deleted
and doubled (their headers say so), integers are written in long forms, bytes are flipped, cut and
inserted.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack

Edit = tuple[int, int, bytes]  # the bytes from one place to another are exchanged for these
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


_EDITS = 30_000  # of one body, nearly all that there are but for strings of bytes


@dataclass(frozen=True, slots=True)
class Value:
    """Where a value lies; ``head`` is how many bytes of it say what it is and how long."""

    start: int
    stop: int
    head: int
    children: tuple[tuple[int, int], ...] = ()  # of an array or map: each element, with its key


class Mutants:
    """Bodies with random edits of one body."""

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

    def some(self, count: int) -> Iterator[bytes]:
        """As many bodies: each of :data:`_EDITS` edits alone, then one with another, so that hardly
        any two are alike.
        """
        body, number = self.body, self.chance.random
        edits = list(dict.fromkeys(self._edit() for _ in range(min(count, _EDITS))))
        for start, stop, part in edits:
            yield body[:start] + part + body[stop:]
        left, many = count - len(edits), len(edits)
        while left > 0:
            start, stop, part = edits[int(number() * many)]
            after, end, other = edits[int(number() * many)]
            if stop <= after:
                left -= 1
                yield body[:start] + part + body[stop:after] + other + body[end:]

    def _edit(self) -> Edit:
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

    def _exchanged(self) -> Edit:
        value = self.chance.choice(self.values)
        return value.start, value.stop, self.chance.choice(self.parts)

    def _resized(self) -> Edit:
        """An element less, or one twice, with a header that says so."""
        holder = self.chance.choice(self.holders)
        start, stop = self.chance.choice(holder.children)
        more = self.chance.random() < 0.5
        head = self._header(holder, len(holder.children) + (1 if more else -1))
        between = self.body[holder.start + holder.head : start]
        return holder.start, stop, head + between + self.body[start:stop] * 2 * more

    def _counted(self) -> Edit:
        """A header that lies about how many elements follow."""
        holder = self.chance.choice(self.holders)
        count = self.chance.choice([0, 1, 2, 15, 16, 255, 65_535, 1 << 20, (1 << 32) - 1])
        return holder.start, holder.start + holder.head, self._header(holder, count)

    def _long_form(self) -> Edit:
        value = self.chance.choice(self.integers)
        mark, form = self.chance.choice(
            [(0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"), (0xD0, ">b"), (0xD3, ">q")]
        )
        part = bytes([mark]) + struct.pack(form, self.body[value.start])
        return value.start, value.stop, part

    def _spliced(self) -> Edit:
        body = self.body
        at = self.chance.randrange(len(body))
        kind = self.chance.randrange(5)
        if kind == 0:
            return at, at + 1, bytes([body[at] ^ 1 << self.chance.randrange(8)])
        if kind == 1:
            return at, at + 1, bytes([self.chance.choice(_SPECIAL)])
        to = min(len(body), at + self.chance.randrange(1, 40))
        if kind == 2:
            return at, to, b""
        if kind == 3:
            return to, to, body[at:to]
        return at, at, bytes(self.chance.choices(_SPECIAL, k=3))

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
