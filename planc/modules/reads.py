"""Fields read by a constructor: the names asked of a configuration while its class builds a model.

A name that the configuration does not hold, or holds as None, has a default in the class; it may be
added to say another value.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from planc.ir.construction import Reads
from planc.modules.held import is_data, public

_DEPTH = 4  # names in a dotted name
_LOCK = threading.RLock()  # classes of configurations are shared by all threads


@dataclass
class Reading:
    """The names asked so far, by the object's dotted start, with the values given."""

    starts: Mapping[int, str]
    kinds: Mapping[type, str]
    given: dict[str, Any] = field(default_factory=dict)

    def reads(self, fields: Mapping[str, Any]) -> Reads:
        """The integers among ``fields`` that were read, under their own or another name."""
        values = [v for name, v in self.given.items() if name not in fields]
        others = [v for v in values if type(v) is int]
        numbers = {name for name, v in fields.items() if name in self.given or v in others}
        optional = tuple(sorted(name for name, value in self.given.items() if value is None))
        return Reads(frozenset(numbers), optional)


def objects(configuration: Any, start: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
    """The configuration and the objects of plain data inside it, by the start of their names."""
    if depth > 0 and is_data(configuration):
        yield start, configuration
        for name, held in public(configuration):
            yield from objects(held, f"{start}{name}.", depth - 1)


@contextmanager
def reading(configuration: Any) -> Iterator[Reading]:
    """Record the names asked of a configuration and of objects inside it, without other effect."""
    held = dict(objects(configuration))
    starts = {id(value): start for start, value in held.items()}
    of_kind = {type(value): start for start, value in reversed(held.items())}
    found = Reading(starts, of_kind)
    with _LOCK:
        kinds = list({type(value): None for value in held.values()})
        own = {kind: vars(kind).get("__getattribute__") for kind in kinds}
        try:
            for kind in kinds:
                kind.__getattribute__ = _recording(kind.__getattribute__, found)
            yield found
        finally:
            for kind in kinds:
                if own[kind] is None:
                    del kind.__getattribute__
                else:
                    kind.__getattribute__ = own[kind]


def _recording(ask: Any, found: Reading) -> Any:
    def asked(self: Any, name: str) -> Any:
        value: Any = None
        try:
            value = ask(self, name)
            return value
        finally:
            start = found.starts.get(id(self), found.kinds.get(type(self)))  # or a copy of one
            if start is not None and not name.startswith("_"):
                found.given[f"{start}{name}"] = value

    return asked
