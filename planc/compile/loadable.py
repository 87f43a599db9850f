"""Loadable plans: limits of a configuration to widths, as constraints before selection.

A size of the pruned model is a product of numbers of the configuration, by the responses of its
class, and a product of kept units, by the analysis. In logarithms both are sums. Eliminating the
numbers leaves the relations between kept units alone: groups that stay whole, groups that lose the
same share, heads in step with the width of the model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from operator import and_
from typing import Any

from planc.analysis import Analysis
from planc.analysis.equations import Constraint, Equations
from planc.analysis.polynomials import Poly, Variable, product
from planc.compile.configuration import constructions
from planc.compile.description import known_responses
from planc.compile.responses import Responses, Site, Slot
from planc.ir.construction import Construction
from planc.ir.graph import attributes_read

_ROOTS = 8  # the largest root in a response: a scale may follow the square root of a width


@dataclass(frozen=True, eq=False)
class Limits:
    """The equations of a model with those of its configuration.

    Attributes:
        equations: all constraints on widths.
        reasons: by group, the obstacle to any removal.
        rows: groups of whole rows whose cells stay whole; they are removed row by row.
    """

    equations: Equations
    reasons: Mapping[int, str]
    rows: tuple[int, ...]


def limits(analysis: Analysis) -> Limits | None:
    """The limits by all configurations of a model; None without any."""
    found = list(constructions(analysis.graph))
    if not found:
        return None
    entered: list[_Relation] = []
    for number, construction in enumerate(found):
        known = known_responses(construction, True)
        if known is not None:
            entered += _relations(analysis, construction, known, number)
    relations = _Relations()
    for relation in sorted(entered, key=lambda relation: len(relation.groups)):
        relations.add(relation)
    equations = analysis.equations("module")
    whole, constraints = dict(equations.whole), list(equations.constraints)
    reasons: dict[int, str] = {}
    for relation in relations.reduced():
        if len(relation.groups) == 1:
            group = next(iter(relation.groups))
            reasons[group] = relation.why
            whole.setdefault(group, relation.why)
        else:
            constraints.append(_constraint(analysis, relation))
    extended = replace(equations, whole=whole, constraints=tuple(constraints))
    return Limits(extended, reasons, _rows(analysis, whole))


@dataclass(frozen=True, eq=False)
class _Relation:
    """A sum of logarithms that is zero: of factors of numbers, less those of kept units."""

    numbers: Mapping[tuple[int, Slot], Fraction]
    groups: Mapping[int, Fraction]
    why: str


class _Relations:
    """Relations by Gaussian elimination, numbers before groups."""

    def __init__(self) -> None:
        self._by_number: dict[tuple[int, Slot], _Relation] = {}
        self._by_group: dict[int, _Relation] = {}
        self._seen: set[tuple[Any, Any]] = set()

    def add(self, relation: _Relation) -> None:
        """Enter a relation; nothing new if it follows from the others."""
        key = (frozenset(relation.numbers.items()), frozenset(relation.groups.items()))
        if key in self._seen:
            return
        self._seen.add(key)
        while relation.numbers:
            number = min(relation.numbers)
            if number not in self._by_number:
                self._by_number[number] = relation
                return
            relation = _eliminated(relation, self._by_number[number], number)
        while relation.groups:
            group = max(relation.groups)
            if group not in self._by_group:
                self._by_group[group] = relation
                return
            relation = _eliminated(relation, self._by_group[group], group)

    def reduced(self) -> Iterator[_Relation]:
        """Relations of groups alone, each in as few groups as possible."""
        done: dict[int, _Relation] = {}
        for group in sorted(self._by_group):
            relation = self._by_group[group]
            for other in sorted(relation.groups.keys() & done.keys()):
                relation = _eliminated(relation, done[other], other)
            done[group] = relation
        yield from done.values()


def _eliminated(relation: _Relation, by: _Relation, key: Any) -> _Relation:
    """The relation without ``key``, a number or a group."""
    side = "groups" if type(key) is int else "numbers"
    factor = getattr(relation, side)[key] / getattr(by, side)[key]

    def less(one: Mapping[Any, Fraction], other: Mapping[Any, Fraction]) -> dict[Any, Fraction]:
        total = {k: one.get(k, 0) - factor * other.get(k, 0) for k in {**one, **other}}
        return {k: v for k, v in total.items() if v}

    numbers, groups = less(relation.numbers, by.numbers), less(relation.groups, by.groups)
    return _Relation(
        numbers, groups, by.why if len(by.groups) == (side == "groups") else relation.why
    )


def _relations(
    analysis: Analysis, construction: Construction, known: Responses, number: int
) -> Iterator[_Relation]:
    """The relations between a configuration's numbers and kept units, by each size."""
    original = construction.original
    assert original is not None
    for slot, told in known.stuck.items():
        yield _Relation({(number, slot): Fraction(1)}, {}, told)
    for site, width in _widths(analysis, construction):
        groups = _common(width)
        followed = known.ratios.get(site, {})
        powers = {slot: _power(ratio) for slot, ratio in followed.items()}
        if not followed:
            yield from _alone(width.variables, site)
        if None in powers.values() and width.constant is not None:
            for slot in followed:  # a sum stays as it is if all its terms do
                yield _Relation({(number, slot): Fraction(1)}, {}, _why(site, known, True))
        if None in powers.values() or not followed:
            continue
        yield from _alone(width.variables - groups.keys(), site, "is set as a whole by")
        numbers = {(number, slot): power for slot, power in powers.items() if power}
        yield _Relation(numbers, groups, _why(site, known, not groups))
    known_names = {name for tensor in analysis.graph.tensors for name in tensor.names}
    for name, dim in construction.varying():
        if name in known_names:
            site = (name, "", (dim,))
            width = _width(analysis, name, dim)
            yield from _alone(width.variables, site, "is computed by the class, by")


def _widths(analysis: Analysis, construction: Construction) -> Iterator[tuple[Site, Poly]]:
    """The sizes that a configuration sets: of tensors, and attributes that keep their value or
    follow widths.
    """
    original, graph = construction.original, analysis.graph
    assert original is not None
    for tensor in graph.tensors:
        for name in tensor.names:
            if name in original.shapes:
                for dim in range(len(tensor.shape)):
                    yield (name, "", (dim,)), _width(analysis, name, dim)
    read = attributes_read(graph.nodes, graph.numbers.values(), graph.comparisons)
    follow = analysis.equations("module").attributes
    for (path, name), value in original.attributes.items():
        if type(value) is float:
            yield (path, name, ()), Poly.const(1)
        elif type(value) is int and (path, name, ()) in follow:
            yield (path, name, ()), follow[path, name, ()]
        elif type(value) is int and (path, name) in read:
            yield (path, name, ()), Poly.const(value)


def _width(analysis: Analysis, name: str, dim: int) -> Poly:
    """The width of a tensor's dimension in kept units."""
    tensor = analysis.graph.tensor(name)
    return analysis.grouping.width(analysis.walked.labels[tensor.value], dim)


def _common(width: Poly) -> dict[int, Fraction]:
    """The exponents of the groups in all terms of a width."""
    monomials = [Counter(monomial) for monomial, _ in width.terms]
    common: Counter[Variable] = reduce(and_, monomials) if monomials else Counter()
    return {g: Fraction(times) for g, times in common.items() if type(g) is int}


def _power(ratio: Fraction | float) -> Fraction | None:
    """The exponent of a doubled number in a size; None where the size is no power of it."""
    if ratio <= 0:
        return None
    exact = math.log2(ratio)
    found = Fraction(exact).limit_denominator(_ROOTS)
    return found if abs(found - exact) < 1e-6 else None


def _alone(
    groups: Iterable[Variable], site: Site, why: str = "is not set by"
) -> Iterator[_Relation]:
    """Relations that keep groups whole."""
    for group in groups:
        if type(group) is int:
            told = f"{site[0]} {why} the configuration"
            yield _Relation({}, {group: Fraction(1)}, told)


def _why(site: Site, known: Responses, keeps: bool) -> str:
    fields = " and ".join(sorted({field for field, _ in known.ratios.get(site, {})}))
    name = ".".join(filter(None, site[:2]))
    if not fields:
        return f"{name} is not set by the configuration"
    return f"{fields} of the configuration set{'' if ' and ' in fields else 's'} {name}" + (
        ", which keeps its value" if keeps else ""
    )


def _constraint(analysis: Analysis, relation: _Relation) -> Constraint:
    """A relation of several groups as an equation of products."""
    scale = math.lcm(*(exponent.denominator for exponent in relation.groups.values()))
    kept = {1: Poly.const(1), -1: Poly.const(1)}  # by the sign of the exponent
    cells = {1: 1, -1: 1}
    for group, exponent in sorted(relation.groups.items()):
        sign, times = (1 if exponent > 0 else -1), abs(int(exponent * scale))
        kept[sign] *= product([Poly.variable(group)] * times)
        cells[sign] *= analysis.groups[group].cells ** times
    common = math.gcd(*cells.values())
    left, right = (kept[sign].scaled(cells[-sign] // common) for sign in (1, -1))
    return Constraint(left, right, relation.why)


def _rows(analysis: Analysis, whole: Mapping[int, str]) -> tuple[int, ...]:
    """Groups of whole rows with nothing removable inside, without rows inside such rows."""
    inside: dict[int, set[int]] = {g: set() for g in analysis.grouping.rowed}
    uses = dict.fromkeys(inside, 0)
    for width in analysis.widths:
        for monomial, _ in width.terms:
            for g in inside.keys() & set(monomial):
                uses[g] += 1
                inside[g] |= {v for v in monomial if type(v) is int and v != g}
    found = []
    for g, cells in inside.items():
        rows = {c for c in cells if c in inside}
        outermost = all(uses[g] >= uses[row] for row in rows)
        if outermost and all(c in whole for c in cells - rows):
            found.append(g)
    return tuple(found)
