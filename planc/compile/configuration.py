"""Configurations: the fields from which the model's class builds the pruned model.

A :class:`Construction` builds tables (shapes, attributes) from fields; the search compares them
with the tables of the pruned model. Fields change only if the rebuilt model matches the pruned one
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import getitem
from typing import Any

from planc.ir.construction import NAME, Construction, Field, Kept, Tables
from planc.ir.expressions import Attribute, SizeOf, evaluate
from planc.ir.graph import Comparison, Graph, attributes_read
from planc.ir.guards import RELATIONS
from planc.ir.plain import same_types, with_leaf
from planc.plan.plan import AttributeChange, Cut, TensorSpec

_CHOICES = 3  # new values of one number; with more of them, parts of the model differ
_PAIRED = 12  # the most steps tried in pairs
_Found = dict[tuple[str, str], tuple[Any, Any]]  # attributes, each before and after
_MISSING = 10.0  # the distance between a tensor and none: more than from 1 to 20,000


@dataclass(frozen=True, eq=False)
class Description:
    """The fields of the pruned model and the attributes of its modules.

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
    """Search for the fields describing a pruned model.

    Args:
        wanted: its tensors' shapes, and the attributes to match.
        kept: the kept indices of each tensor, by dimension.
        given: fields with new values already.
        fixed: fields to leave unchanged, because the forward reads them.
        sizes: the new values of sizes: a field of value n is tried with each of ``sizes[n]``.
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
    """The changes of a plan, extended by the configuration of the pruned model and by attributes of
    its modules unread by the forward.

    Args:
        after: the tensors of the pruned model.
        cuts: the removals from them.
        shapes: the shapes of all values of the pruned graph.
    """
    construction = graph.construction
    original = construction.original if construction is not None and cuts else None
    if construction is None or original is None:
        return changes
    new = {(change.module, change.name): change.after for change in changes}
    comparisons = [c for c in graph.comparisons if c.relation in RELATIONS]
    others = [c for c in graph.comparisons if c.relation not in RELATIONS]
    read = attributes_read(graph.nodes, graph.numbers.values(), others)
    compared = attributes_read((), (), comparisons) - read
    found: _Found = {}
    for decided in (read, read | compared) if compared else (read,):
        unread = {
            key: value
            for key, value in original.attributes.items()
            if key not in decided | new.keys() and _whole(value)
        }
        rest = {k: new.get(k, v) for k, v in original.attributes.items() if k not in unread}
        description = describe(
            construction,
            wanted=Tables({name: spec.shape for spec in after for name in spec.names}, rest),
            kept={name: cut.kept for name, cut in cuts.items()},
            given={field: value for key, value in new.items() if (field := _field(*key))},
            fixed=frozenset(field for key in decided if (field := _field(*key))),
            sizes=_sizes(graph, changes, shapes),
        )
        found = _found(description, construction, unread)
        later = new | {key: value for key, (_, value) in found.items()}
        if _come_out_alike(comparisons, shapes, later):
            break
    added = tuple(
        AttributeChange(*key, old, value)
        for key, (old, value) in found.items()
        if key not in new and value != old and same_types(old, value)
    )
    return tuple(sorted((*changes, *added), key=lambda change: (change.module, change.name)))


def _found(
    description: Description, construction: Construction, unread: Mapping[tuple[str, str], Any]
) -> _Found:
    """The fields and the unread attributes of a description, each before and after."""
    fields = {("", f"{NAME}.{field}"): value for field, value in description.fields.items()}
    before = {key: construction.fields[_field(*key)] for key in fields} | dict(unread)
    after = fields | {key: description.attributes.get(key, unread[key]) for key in unread}
    return {key: (before[key], value) for key, value in after.items()}


def _come_out_alike(
    comparisons: Sequence[Comparison],
    shapes: Sequence[tuple[int, ...]],
    new: Mapping[tuple[str, str], Any],
) -> bool:
    """True if comparisons hold with the sizes and attributes of the pruned model."""

    def leaf(of: Attribute | SizeOf) -> Any:
        if isinstance(of, SizeOf):
            return shapes[of.value][of.dim]
        value = new.get((of.module, of.name))
        return of.value if value is None else reduce(getitem, of.index, value)

    return all(
        RELATIONS[c.relation](evaluate(c.left, leaf), evaluate(c.right, leaf)) for c in comparisons
    )


def _field(path: str, name: str) -> Field:
    """The configuration's field in an attribute, empty for other attributes."""
    field = name.removeprefix(f"{NAME}.")
    return field if path == "" and field != name else ""


def _sizes(
    graph: Graph, changes: Sequence[AttributeChange], shapes: Sequence[tuple[int, ...]]
) -> dict[int, frozenset[int]]:
    """The new values of numbers: sizes of values, and attributes."""
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
    """True for an integer, or a nested tuple of integers."""
    return type(value) in (int, tuple) and all(type(n) is int for _, n in _numbers(value))


Step = tuple[Field, tuple[int, ...], int]


def _steps(fields: Mapping[Field, Any], sizes: Mapping[int, frozenset[int]]) -> list[Step]:
    """Each integer of a field with each of its possible new values."""
    return [
        (field, index, size)
        for field, value in fields.items()
        for index, number in _numbers(value)
        if len(sizes.get(number, ())) <= _CHOICES
        for size in sorted(sizes.get(number, ()))
    ]


def _numbers(value: Any, index: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], int]]:
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _numbers(item, (*index, i))
    else:
        yield index, value


class _Search:
    """Moves from fields to fields of a model nearer to the wanted one."""

    def __init__(self, construction: Construction, wanted: Tables) -> None:
        self.construction, self.wanted = construction, wanted
        self._made: dict[tuple[tuple[Field, Any], ...], tuple[float, Tables | None]] = {}

    def tables(self, fields: Mapping[Field, Any]) -> Tables | None:
        return self._measured(fields)[1]

    def distance(self, fields: Mapping[Field, Any]) -> float:
        """The distance to the wanted model: 0 if all sizes match."""
        return self._measured(fields)[0]

    def _measured(self, fields: Mapping[Field, Any]) -> tuple[float, Tables | None]:
        key = tuple(sorted(fields.items()))
        if key not in self._made:
            found = self.construction.built(fields)
            distance = math.inf if found is None else _distance(found, self.wanted)
            self._made[key] = (distance, found)
        return self._made[key]

    def better(self, fields: Mapping[Field, Any], steps: list[Step]) -> dict[Field, Any] | None:
        """The nearest fields after one step, or, if no step gets nearer, after two at once, because
        two fields may make one size. None if neither gets nearer.
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
        field, index, size = step
        value = fields.get(field, self.construction.fields[field])
        return {**fields, field: with_leaf(value, index, size)}


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
            return f"{path}.{name} would be {have}, it is {value}"
    return ""
