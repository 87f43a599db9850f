"""The search for fields: the configuration from which a class builds a wanted model.

From changed sizes to changed fields, in three steps: fields follow from the sizes that respond to
them alone, then from products; the rest by trying. The class has the last word: fields count only
if the model built from them has the wanted shapes, attributes and computed buffers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

from planc.compile.responses import (
    Responses,
    Slot,
    numbers_in,
    responses,
    sizes,
)
from planc.ir.construction import Construction, Field, Kept, Tables
from planc.ir.plain import with_leaf

_CHOICES = 3  # new values of one number; with more of them, parts of the model differ
_PAIRED = 12  # the most steps tried in pairs
_MISSING = 10.0  # the distance between a tensor and none: more than from 1 to 20,000


@dataclass(frozen=True, eq=False)
class Description:
    """The fields of a wanted model and the attributes of its modules.

    Both are empty if no fields match; ``difference`` is then the first one of the nearest match.
    """

    fields: Mapping[Field, Any]
    attributes: Mapping[tuple[str, str], Any]
    difference: str = ""


def describe(
    construction: Construction,
    wanted: Tables,
    kept: Kept,
    given: Mapping[Field, Any],
    fixed: frozenset[Field],
    sizes: Mapping[int, frozenset[int]],
) -> Description:
    """Search for the fields that describe a wanted model.

    Args:
        wanted: its tensors' shapes, and the attributes to match.
        kept: the kept indices of each tensor, by dimension.
        given: fields with new values already.
        fixed: fields to leave unchanged, because the forward reads them.
        sizes: the new values of sizes: a field of value n is tried with each of ``sizes[n]``.
    """
    none = "the class makes no model from the configuration"
    nearest = Description({}, {}, none)
    for optional in (False, True):
        known = known_responses(construction, optional)
        if known is None or (optional and not known.base):
            break
        search = _Search(construction, known, wanted, given, fixed, sizes)
        found = search.found()
        made = construction.built(found)
        if made is None:
            nearest = Description({}, {}, f"{none}: {construction.failure(found)}")
            continue
        difference = first_difference(wanted, made) or construction.content_differs(found, kept)
        if not difference:
            fields = search.fewest(found, made, known.base)
            return Description(fields, made.attributes)
        nearest = Description({}, {}, difference + known.following(difference))
    return nearest


_KNOWN: WeakKeyDictionary[Any, dict[bool, Responses | None]] = WeakKeyDictionary()


def known_responses(construction: Construction, optional: bool) -> Responses | None:
    """The responses of a construction, made on first use."""
    known = _KNOWN.setdefault(construction, {})
    if optional not in known:
        known[optional] = responses(construction, optional)
    return known[optional]


class _Search:
    """A search for the fields of one wanted model."""

    def __init__(
        self,
        construction: Construction,
        known: Responses,
        wanted: Tables,
        given: Mapping[Field, Any],
        fixed: frozenset[Field],
        new: Mapping[int, frozenset[int]],
    ) -> None:
        self.construction, self.known, self.wanted = construction, known, wanted
        self.given, self.fixed, self.new = given, fixed, new
        self._distances: dict[tuple[tuple[Field, Any], ...], float] = {}

    def found(self) -> Mapping[Field, Any]:
        """The fields of the nearest model."""
        start = self._with({**self.known.base, **self.given}, self._solved())
        plain = {**self.known.base, **self.given}
        last: Mapping[Field, Any] = min(start, plain, key=self.distance)
        steps = self._steps()
        fields: Mapping[Field, Any] | None = last
        while fields is not None:
            last, fields = fields, self._better(fields, steps)
        return last

    def fewest(
        self, fields: Mapping[Field, Any], made: Tables, base: Mapping[Field, Any]
    ) -> Mapping[Field, Any]:
        """The fields without optional ones that change nothing."""
        for field in base:
            without = {name: value for name, value in fields.items() if name != field}
            other = self.construction.built(without)
            if other is not None and not first_difference(made, other):
                fields = without
        return fields

    def distance(self, fields: Mapping[Field, Any]) -> float:
        """The distance to the wanted model: 0 if all sizes match."""
        key = tuple(sorted(fields.items()))
        if key not in self._distances:
            made = self.construction.built(fields)
            self._distances[key] = math.inf if made is None else _distance(made, self.wanted)
        return self._distances[key]

    def _solved(self) -> dict[Slot, int]:
        """Numbers that follow from the wanted sizes, most certain first."""
        factors = {slot: Fraction(1) for slot in self.known.numbers if slot[0] in self.fixed}
        for field, value in self.given.items():
            for index, number in numbers_in(value):
                if (field, index) in self.known.numbers:
                    factors[field, index] = Fraction(number, self.known.numbers[field, index])
        wanted = dict(sizes(self.wanted))
        solved: dict[Slot, int] = {}
        while votes := self._votes(factors, wanted):
            for slot, of_slot in votes.items():
                value = of_slot.most_common(1)[0][0]
                factors[slot] = Fraction(value, self.known.numbers[slot])
                solved[slot] = value
        return solved

    def _votes(
        self, factors: Mapping[Slot, Fraction], wanted: Mapping[Any, int | float]
    ) -> dict[Slot, Counter[int]]:
        """The values of numbers by sites with all other numbers known."""
        votes: dict[Slot, Counter[int]] = {}
        for site, followed in self.known.ratios.items():
            open_ = [slot for slot in followed if slot not in factors]
            if len(open_) == 1 and site in wanted:
                value = self._value(site, open_[0], factors, wanted[site])
                if value is not None and value > 0:
                    votes.setdefault(open_[0], Counter())[value] += 1
        return votes

    def _value(
        self, site: Any, slot: Slot, factors: Mapping[Slot, Fraction], wanted: int | float
    ) -> int | None:
        """The value of a number that gives a site its wanted size; None if none does."""
        size, number = self.known.sites[site], self.known.numbers[slot]
        if type(size) is not int or type(wanted) is not int or not wanted:
            return None
        followed = self.known.ratios[site]
        factor = Fraction(wanted, size)
        if all(ratio in (2, Fraction(1, 2)) for ratio in followed.values()):
            for other, ratio in followed.items():
                if other != slot:
                    factor /= factors[other] if ratio == 2 else 1 / factors[other]
            value = number * factor if followed[slot] == 2 else number / factor
        elif all(factors[other] == 1 for other in followed if other != slot):
            slope = (Fraction(followed[slot]) - 1) * Fraction(size, number)
            value = number + (wanted - size) / slope
        else:
            return None
        return int(value) if value.denominator == 1 else None

    def _steps(self) -> list[tuple[Slot, int]]:
        """Each number with each of its possible new values."""
        return [
            (slot, size)
            for slot, number in self.known.numbers.items()
            if slot[0] not in self.fixed and slot[0] not in self.given
            if len(self.new.get(number, ())) <= _CHOICES
            for size in sorted({number, *self.new.get(number, ())})
        ]

    def _better(
        self, fields: Mapping[Field, Any], steps: list[tuple[Slot, int]]
    ) -> Mapping[Field, Any] | None:
        """The nearest fields after one step, or, if no step gets nearer, after two at once, because
        two fields may make one size. None if neither gets nearer.
        """
        if self.distance(fields) == 0:
            return None
        for several in (1, 2):
            tried = [
                self._with(fields, dict(chosen))
                for chosen in combinations(steps[: None if several == 1 else _PAIRED], several)
                if len({slot for slot, _ in chosen}) == several
            ]
            nearest = min(tried, key=self.distance, default=fields)
            if self.distance(nearest) < self.distance(fields):
                return nearest
        return None

    def _with(self, fields: Mapping[Field, Any], numbers: Mapping[Slot, int]) -> dict[Field, Any]:
        """The fields with new numbers; those with the original's numbers are left out."""
        found = dict(fields)
        before = {**self.construction.fields, **self.known.base}
        for (field, index), number in numbers.items():
            found[field] = with_leaf(found.get(field, before[field]), index, number)
        asked = self.known.base.keys() | self.given.keys()
        return {f: v for f, v in found.items() if f in asked or v != self.construction.fields[f]}


def _distance(found: Tables, wanted: Tables) -> float:
    """The total distance of all sizes."""
    total = 0.0
    for name in wanted.shapes.keys() | found.shapes.keys():
        total += _apart(wanted.shapes.get(name), found.shapes.get(name))
    for key, value in wanted.attributes.items():
        if isinstance(value, int | tuple):
            total += _apart(value, found.attributes.get(key))
    return total


def _apart(one: Any, other: Any) -> float:
    """The sum of absolute logarithms of ratios."""
    if one == other:
        return 0.0
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return sum(map(_apart, one, other))
    if type(one) is type(other) is int:
        return abs(math.log((abs(one) + 1) / (abs(other) + 1))) or 1.0
    return _MISSING


def first_difference(wanted: Tables, found: Tables) -> str:
    """The first differing tensor or attribute, in words."""
    for name in sorted(wanted.shapes.keys() | found.shapes.keys()):
        have, want = found.shapes.get(name), wanted.shapes.get(name)
        if have != want:
            return f"{name} would be of shape {have}, it is {want}"
    for (path, name), value in wanted.attributes.items():
        have = found.attributes.get((path, name))
        if have != value or type(have) is not type(value):
            return f"{path}.{name} would be {have}, it is {value}".removeprefix(".")
    return ""
