"""Configurations: the fields from which a class builds the pruned model.

A :class:`Construction` builds tables (shapes, attributes) from fields;
:mod:`planc.compile.description` searches for those of the pruned model. Fields change only if the
rebuilt model matches the pruned one exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from planc.compile.description import Description, describe
from planc.compile.responses import numbers_in
from planc.ir.construction import Construction, Field, Tables
from planc.ir.expressions import Attribute, SizeOf, evaluate
from planc.ir.graph import Comparison, Graph, attributes_read
from planc.ir.guards import RELATIONS
from planc.ir.plain import same_types
from planc.plan.plan import AttributeChange, Cut, TensorSpec

_LONGEST = 400  # characters of a reason


@dataclass(frozen=True, eq=False)
class Pruned:
    """The tables of a pruned model.

    Attributes:
        changes: the changes of attributes read by the forward.
        after: the tensors of the pruned model.
        cuts: the removals from them.
        shapes: the shapes of all values of the pruned graph.
    """

    changes: tuple[AttributeChange, ...]
    after: tuple[TensorSpec, ...]
    cuts: Mapping[str, Cut]
    shapes: Sequence[tuple[int, ...]]


def with_configuration(graph: Graph, pruned: Pruned) -> tuple[AttributeChange, ...]:
    """The changes of a plan, extended by the configuration of the pruned model, or of the models
    inside it, and by attributes of its modules unread by the forward.
    """
    new = {(change.module, change.name) for change in pruned.changes}
    found: dict[tuple[str, str], AttributeChange] = {}
    for construction, searched in searches(graph, pruned):
        for change in searched.changes(construction):
            found.setdefault((change.module, change.name), change)
    added = tuple(change for key, change in found.items() if key not in new)
    return tuple(sorted((*pruned.changes, *added), key=lambda change: (change.module, change.name)))


def short(text: str) -> str:
    """A reason in one line of bounded length."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def obstacle(graph: Graph, pruned: Pruned) -> str:
    """The first reason why no configuration describes the pruned model; empty if one does, or if
    the model has none.
    """
    told = [searched.description.difference for _, searched in searches(graph, pruned)]
    return next(filter(None, told), "")


@dataclass(frozen=True, eq=False)
class Searched:
    """The outcome of a search, with the attributes that the forward does not read."""

    description: Description
    unread: Mapping[tuple[str, str], Any]

    def changes(self, construction: Construction) -> Iterator[AttributeChange]:
        """The changed fields and attributes."""
        module, name = construction.holder
        for field, value in self.description.fields.items():
            before = construction.fields.get(field)
            if value != before:
                yield AttributeChange(module, f"{name}.{field}", before, value)
        for key, before in self.unread.items():
            value = self.description.attributes.get(key, before)
            if value != before and same_types(before, value):
                yield AttributeChange(*key, before, value)


def constructions(graph: Graph) -> Iterator[Construction]:
    """The constructions that build the traced model, or models inside it, each part once."""
    done: list[str] = []
    for construction in graph.constructions:
        inside = any(path == "" or f"{construction.path}.".startswith(f"{path}.") for path in done)
        if not inside and construction.original is not None:
            done.append(construction.path)
            yield construction


def searches(graph: Graph, pruned: Pruned) -> Iterator[tuple[Construction, Searched]]:
    """The search for each configuration of the model whose tensors are cut.

    Fields that comparisons alone read may change, as long as the comparisons come out alike.
    """
    comparisons = [c for c in graph.comparisons if c.relation in RELATIONS]
    others = [c for c in graph.comparisons if c.relation not in RELATIONS]
    read = attributes_read(graph.nodes, graph.numbers.values(), others)
    compared = attributes_read((), (), comparisons) - read
    for construction in constructions(graph) if pruned.cuts else ():
        found = _searched(graph, construction, pruned, read)
        if compared and not _come_out_alike(comparisons, construction, pruned, found):
            found = _searched(graph, construction, pruned, read | compared)
        yield construction, found


def _searched(
    graph: Graph, construction: Construction, pruned: Pruned, read: set[tuple[str, str]]
) -> Searched:
    """The search for one configuration, with the attributes that are ``read`` as planned."""
    new = {(change.module, change.name): change.after for change in pruned.changes}
    shapes = {name: spec.shape for spec in pruned.after for name in spec.names}
    original = construction.original
    assert original is not None
    unread = {
        key: value
        for key, value in original.attributes.items()
        if key not in read and key not in new and _whole(value)
    }
    rest = {k: new.get(k, v) for k, v in original.attributes.items() if k not in unread}
    own = {name: shapes[name] for name in original.shapes if name in shapes}
    description = describe(
        construction,
        wanted=Tables(own, rest),
        kept={name: cut.kept for name, cut in pruned.cuts.items()},
        given={f: value for key, value in new.items() if (f := _field(construction, *key))},
        fixed=frozenset(f for key in read - new.keys() if (f := _field(construction, *key))),
        sizes=_sizes(graph, pruned),
    )
    return Searched(description, unread)


def _come_out_alike(
    comparisons: Sequence[Comparison],
    construction: Construction,
    pruned: Pruned,
    found: Searched,
) -> bool:
    """True if comparisons hold with the sizes and attributes of the pruned model."""
    changes = (*pruned.changes, *found.changes(construction))
    new = {(change.module, change.name): change.after for change in changes}

    def leaf(of: Attribute | SizeOf) -> Any:
        if isinstance(of, SizeOf):
            return pruned.shapes[of.value][of.dim]
        value = new.get((of.module, of.name))
        return of.value if value is None else reduce(getitem, of.index, value)

    return all(
        RELATIONS[c.relation](evaluate(c.left, leaf), evaluate(c.right, leaf)) for c in comparisons
    )


def _field(construction: Construction, path: str, name: str) -> Field:
    """The configuration's field in an attribute, empty for other attributes."""
    module, holder = construction.holder
    field = name.removeprefix(f"{holder}.")
    return field if path == module and field != name and field in construction.fields else ""


def _sizes(graph: Graph, pruned: Pruned) -> dict[int, frozenset[int]]:
    """The new values of numbers: sizes of values, and attributes."""
    found: dict[int, set[int]] = {}
    for value, shape in zip(graph.values, pruned.shapes, strict=True):
        for before, after in zip(value.shape, shape, strict=True):
            if before != after:
                found.setdefault(before, set()).add(after)
    for change in pruned.changes:
        if type(change.before) is int:
            found.setdefault(change.before, set()).add(change.after)
    return {before: frozenset(afters) for before, afters in found.items()}


def _whole(value: Any) -> bool:
    """True for an integer, or a nested tuple of integers."""
    return type(value) in (int, tuple) and all(type(n) is int for _, n in numbers_in(value))
