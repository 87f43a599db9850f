"""Responses: the entries of a model's tables that follow each number of its configuration.

The class builds a model with one number doubled at a time. Nothing is known of the class beyond
these models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from planc.ir.construction import Construction, Field, Tables
from planc.ir.plain import with_leaf

Index = tuple[int, ...]
Slot = tuple[Field, Index]
"""A field, and the place of one number in it."""
Site = tuple[str, str, Index]
"""A tensor and a dimension, or a module, an attribute and the place of a number in it."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Responses of a class around ``base``, a configuration that builds the original model.

    Attributes:
        base: optional fields, with the value that the class takes by default.
        numbers: the value of each number with a response.
        sites: the size of each site of the original.
        ratios: by site and number, the factor by which the site follows a doubled number.
        stuck: by number, an attribute other than a number that follows it, in words.
    """

    base: Mapping[Field, Any]
    numbers: Mapping[Slot, int]
    sites: Mapping[Site, int | float]
    ratios: Mapping[Site, Mapping[Slot, Fraction | float]]
    stuck: Mapping[Slot, str]

    def following(self, difference: str) -> str:
        """The fields behind the object named first in a difference, in words."""
        name = difference.split(" ", 1)[0]
        sites = (site for site in self.ratios if ".".join(filter(None, site[:2])) == name)
        fields = {field for site in sites for field, _ in self.ratios[site]}
        fields |= {field for (field, _), told in self.stuck.items() if told.startswith(f"{name} ")}
        return f"; it follows {' and '.join(sorted(fields))} of the configuration" if fields else ""


def responses(construction: Construction, optional: bool) -> Responses | None:
    """The responses of a construction, with its ``optional`` fields if asked.

    None if the configuration does not build the model.
    """
    original = construction.original
    if original is None:
        return None
    base = dict(_defaults(construction, original)) if optional else {}
    if base and not _same(construction.built(base), original):
        base = {}
    sites = dict(sizes(original))
    ratios: dict[Site, dict[Slot, Fraction | float]] = {}
    values: dict[Slot, int] = {}
    stuck: dict[Slot, str] = {}
    fields = {**construction.fields, **base}
    known = construction.reads.numbers | base.keys()
    for field, value in fields.items():
        for index, number in numbers_in(value) if field in known else ():
            changed = next(_changed(construction, base, field, index, value), None)
            slot, responded = (field, index), False
            if changed is None:  # such as the length of a list beside it
                values.update({slot: number} if number > 0 else {})
                continue
            for site, size in sizes(changed):
                before = sites.get(site, size)
                if size != before and before:
                    ratios.setdefault(site, {})[slot] = _ratio(size, before)
                    responded = True
            if responded or changed.shapes.keys() != original.shapes.keys():
                values[slot] = number
                if told := _stuck(original, changed):
                    stuck[slot] = told
    return Responses(base, values, sites, ratios, stuck)


def numbers_in(value: Any, index: Index = ()) -> Iterator[tuple[Index, int]]:
    """The numbers of a field, a nested tuple or one number, with their places."""
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from numbers_in(item, (*index, i))
    else:
        yield index, value


def _ratio(new: int | float, before: int | float) -> Fraction | float:
    both_whole = type(new) is type(before) is int
    return Fraction(int(new), int(before)) if both_whole else new / before


def sizes(tables: Tables) -> Iterator[tuple[Site, int | float]]:
    """The sizes of tensors and the numbers in attributes."""
    yield from _shapes(tables)
    for (path, name), value in tables.attributes.items():
        for index, number in numbers_in(value):
            if type(number) in (int, float):
                yield (path, name, index), number


def _shapes(tables: Tables) -> Iterator[tuple[Site, int]]:
    for name, shape in tables.shapes.items():
        for dim, size in enumerate(shape):
            yield (name, "", (dim,)), size


def _changed(
    construction: Construction, base: Mapping[Field, Any], field: Field, index: Index, value: Any
) -> Iterator[Tables]:
    """The model with a number doubled."""
    number = dict(numbers_in(value))[index]
    if number < 1:
        return
    tried = {**base, field: with_leaf(value, index, 2 * number)}
    if (made := construction.built(tried)) is not None:
        yield made


def _stuck(original: Tables, changed: Tables) -> str:
    """The first attribute other than a number with another value."""
    for key, value in original.attributes.items():
        new = changed.attributes.get(key, value)
        if new != value and not all(type(n) in (int, float) for _, n in numbers_in(value)):
            return f"{'.'.join(filter(None, key))} would be {new}, it is {value}"
    return ""


def _defaults(construction: Construction, original: Tables) -> Iterator[tuple[Field, int]]:
    """Optional fields with an effect on shapes, and the value with the same effect as none."""
    sites = dict(_shapes(original))
    for field in construction.reads.optional:
        for probe in (2, 4):
            made = construction.built({field: probe})
            found = dict(_shapes(made)) if made is not None else {}
            moved = {s for s, size in found.items() if size and sites.get(s, size) != size}
            if not moved:
                continue
            defaults = {Fraction(sites[site] * probe, found[site]) for site in moved}
            for default in sorted(defaults)[:_CHOICES]:
                whole = default.denominator == 1
                if whole and _same(construction.built({field: int(default)}), original):
                    yield field, int(default)
            break


_CHOICES = 3


def _same(made: Tables | None, original: Tables) -> bool:
    return (
        made is not None
        and made.shapes == original.shapes
        and all(made.attributes.get(key) == held for key, held in original.attributes.items())
    )
