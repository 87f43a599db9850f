"""Configurations: what fields they must have for the model's class to make the pruned model anew.

In: the tables of the pruned model (shapes, attributes) and a :class:`Construction`, which builds
tables from fields. Out: the fields that change. A field is never set for looking right: all changes
together must lead to exactly the pruned model, or none is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from planc.ir.construction import NAME, Construction, Field, Kept, Tables
from planc.ir.graph import Graph, attributes_read
from planc.plan.plan import AttributeChange, Cut, TensorSpec

_CHOICES = 3  # what one number may become; where it is more, parts of the model differ
_PAIRED = 12  # the most steps of which pairs are tried
_MISSING = 10.0  # the distance between a tensor and none: more than from 1 to 20,000


@dataclass(frozen=True, eq=False)
class Description:
    """The fields that make the pruned model, with all attributes that its modules then have; or,
    if there are none, the first ``difference`` of the nearest that was found.
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
    """Searches for the fields that describe a pruned model.

    Args:
        wanted: its tensors' shapes, and the attributes that matter.
        kept: the indices of each tensor that stay, by dimension.
        given: fields that already have new values.
        fixed: fields that may not change, for the forward reads them.
        sizes: what sizes become: a field of value n is tried with each of ``sizes[n]``.
    """
    search = _Search(construction, wanted)
    fields: dict[Field, Any] | None = dict(given)
    steps = [step for step in _steps(construction.fields, sizes) if step[0] not in fixed | {*given}]
    last = dict(given)
    while fields is not None:
        last, fields = fields, search.better(fields, steps)
    found = search.tables(last)
    if found is None:
        return Description({}, {}, "the class makes no model from the configuration")
    difference = first_difference(wanted, found) or construction.content_differs(last, kept)
    if difference:
        return Description({}, {}, difference)
    return Description(last, found.attributes)


def with_configuration(
    graph: Graph,
    changes: tuple[AttributeChange, ...],
    after: tuple[TensorSpec, ...],
    cuts: Mapping[str, Cut],
    shapes: Sequence[tuple[int, ...]],
) -> tuple[AttributeChange, ...]:
    """The changes of a plan, with those of the configuration that describes the pruned model, and
    of the attributes that the forward does not read but a model made from it would have.

    Args:
        after: the tensors of the pruned model.
        cuts: what is removed of them.
        shapes: the shapes of all values of the graph once it is.
    """
    construction = graph.construction
    original = construction.original if construction is not None and cuts else None
    if construction is None or original is None:
        return changes
    new = {(change.module, change.name): change.after for change in changes}
    read = attributes_read(graph.nodes, graph.numbers.values(), graph.comparisons)
    unread = {
        key
        for key, value in original.attributes.items()
        if key not in read | new.keys() and type(value) in (int, tuple) and _whole(value)
    }
    description = describe(
        construction,
        Tables(
            {name: spec.shape for spec in after for name in spec.names},
            {
                key: new.get(key, value)
                for key, value in original.attributes.items()
                if key not in unread
            },
        ),
        {name: cut.kept for name, cut in cuts.items()},
        {
            name.removeprefix(f"{NAME}."): value
            for (path, name), value in new.items()
            if path == "" and name.startswith(f"{NAME}.")
        },
        frozenset(
            name.removeprefix(f"{NAME}.")
            for path, name in read
            if path == "" and name.startswith(f"{NAME}.")
        ),
        _sizes(graph, changes, shapes),
    )
    more = {
        ("", f"{NAME}.{field}"): (construction.fields[field], value)
        for field, value in description.fields.items()
    }
    for key in unread:
        before = original.attributes[key]
        more[key] = (before, description.attributes.get(key, before))
    added = tuple(
        AttributeChange(*key, before, value)
        for key, (before, value) in more.items()
        if key not in new and value != before and _alike(before, value)
    )
    return tuple(sorted((*changes, *added), key=lambda change: (change.module, change.name)))


def _sizes(
    graph: Graph, changes: Sequence[AttributeChange], shapes: Sequence[tuple[int, ...]]
) -> dict[int, frozenset[int]]:
    """What numbers become: sizes of values, and attributes."""
    found: dict[int, set[int]] = {}
    for value, shape in zip(graph.values, shapes, strict=True):
        for before, after in zip(value.shape, shape, strict=True):
            if before != after:
                found.setdefault(before, set()).add(after)
    for change in changes:
        if type(change.before) is int:
            found.setdefault(change.before, set()).add(change.after)
    return {before: frozenset(afters) for before, afters in found.items()}


def _whole(value: Any) -> bool:
    """Whether a number, or all in nested tuples, are integers."""
    return all(map(_whole, value)) if isinstance(value, tuple) else type(value) is int


def _alike(one: Any, other: Any) -> bool:
    """Whether two plain values are of one type, numbers and the length of tuples included."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other)


Step = tuple[Field, tuple[int, ...], int]


def _steps(fields: Mapping[Field, Any], sizes: Mapping[int, frozenset[int]]) -> list[Step]:
    """Each integer of a field with each of the values that it may get."""
    return [
        (field, index, size)
        for field, value in fields.items()
        for index, number in _integers(value)
        if len(sizes.get(number, ())) <= _CHOICES
        for size in sorted(sizes.get(number, ()))
    ]


def _integers(value: Any, index: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], int]]:
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _integers(item, (*index, i))
    else:
        yield index, value


class _Search:
    """Goes from fields to fields that make a model nearer to the wanted one."""

    def __init__(self, construction: Construction, wanted: Tables) -> None:
        self.construction, self.wanted = construction, wanted
        self._made: dict[tuple[tuple[Field, Any], ...], tuple[float, Tables | None]] = {}

    def tables(self, fields: Mapping[Field, Any]) -> Tables | None:
        """The tables of the model that fields make."""
        return self._measured(fields)[1]

    def distance(self, fields: Mapping[Field, Any]) -> float:
        """How far that is from the wanted one: 0 where all sizes are right."""
        return self._measured(fields)[0]

    def _measured(self, fields: Mapping[Field, Any]) -> tuple[float, Tables | None]:
        key = tuple(sorted(fields.items()))
        if key not in self._made:
            found = self.construction.built(fields)
            distance = math.inf if found is None else _distance(found, self.wanted)
            self._made[key] = (distance, found)
        return self._made[key]

    def better(self, fields: Mapping[Field, Any], steps: list[Step]) -> dict[Field, Any] | None:
        """The nearest that one step leads to; where none leads nearer, two steps at once, for two
        fields may make one size. None where neither does.
        """
        if self.distance(fields) == 0:
            return None
        singles = [(step, self.taken(fields, step)) for step in steps]
        nearest = min((new for _, new in singles), key=self.distance, default=fields)
        if self.distance(nearest) < self.distance(fields):
            return dict(nearest)
        names = self.construction.original
        sound = [
            step
            for step, new in singles
            if (made := self.tables(new)) and names and made.shapes.keys() == names.shapes.keys()
        ]
        pairs = [
            self.taken(self.taken(fields, one), other)
            for one, other in combinations(sound[:_PAIRED], 2)
            if one[:2] != other[:2]
        ]
        nearest = min(pairs, key=self.distance, default=fields)
        return dict(nearest) if self.distance(nearest) < self.distance(fields) else None

    def taken(self, fields: Mapping[Field, Any], step: Step) -> dict[Field, Any]:
        """The fields after a step."""
        field, index, size = step
        value = fields.get(field, self.construction.fields[field])
        return {**fields, field: _with(value, index, size)}


def _with(value: Any, index: tuple[int, ...], size: int) -> Any:
    if not index:
        return size
    return tuple(_with(v, index[1:], size) if i == index[0] else v for i, v in enumerate(value))


def _distance(found: Tables, wanted: Tables) -> float:
    """The sum of what sizes are apart."""
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
    """The first tensor or attribute that is not as wanted, in words."""
    for name in sorted(wanted.shapes.keys() | found.shapes.keys()):
        have, want = found.shapes.get(name), wanted.shapes.get(name)
        if have != want:
            return f"{name} would be of shape {have}, it is {want}"
    for (path, name), value in wanted.attributes.items():
        have = found.attributes.get((path, name))
        if have != value or type(have) is not type(value):
            return f"{path}.{name} would be {have}, it is {value}"
    return ""
