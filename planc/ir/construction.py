"""Construction of models from configurations: the protocol, and the tables that it fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NAME = "config"  # the attribute of the configuration
Field = str  # a dotted name, from the configuration down
Kept = Mapping[str, tuple["NDArray[np.int64] | None", ...]]


@dataclass(frozen=True, eq=False)
class Tables:
    """The shapes of a model's tensors by name, and the plain attributes of its modules by path and
    name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    attributes: Mapping[tuple[str, str], Any]


@dataclass(frozen=True, slots=True)
class Reads:
    """The names of integers read by a constructor, and ``optional`` names with a default in the
    class.
    """

    numbers: frozenset[Field]
    optional: tuple[Field, ...]


class Construction(Protocol):
    """Builds models from configurations (:mod:`planc.modules.construction`)."""

    @property
    def path(self) -> str: ...
    @property
    def holder(self) -> tuple[str, str]: ...
    @property
    def fields(self) -> Mapping[Field, Any]: ...
    @property
    def loads(self) -> bool: ...
    @property
    def original(self) -> Tables | None: ...
    @property
    def reads(self) -> Reads: ...
    def built(self, changes: Mapping[Field, Any]) -> Tables | None: ...
    def failure(self, changes: Mapping[Field, Any]) -> str: ...
    def content_differs(self, changes: Mapping[Field, Any], kept: Kept) -> str: ...
    def varying(self) -> Iterator[tuple[str, int]]: ...
