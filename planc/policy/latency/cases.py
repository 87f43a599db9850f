"""Measurement cases: the operators of a model with their arguments at several widths, as shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from planc.analysis import Analysis
from planc.analysis.polynomials import Poly
from planc.ir.expressions import Scalar
from planc.ir.graph import Node, Ref, refs
from planc.rules import find, parameters
from planc.rules.labels.facts import Demand

_FRACTIONS = {1: (1, 2, 4, 6, 8), 2: (1, 2, 4, 6, 8), 3: (2, 4, 8)}  # eighths, by number of axes
_BLOCKS = (32, 16, 8)  # candidate block sizes of kernels, in channels, largest first
_ALIGNED = 16  # measured widths above this are multiples of it, so that no block is partly filled


@dataclass(frozen=True, slots=True)
class Operand:
    """The shape and dtype of a tensor to create."""

    shape: tuple[int, ...]
    dtype: str


Probes = tuple[tuple[int, tuple[Any, Any]], ...]
"""Block sizes, each with the arguments without the last block and with one channel of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A node with its arguments at each point of its grid, ending with the unpruned ones."""

    node: Node
    axes: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[tuple[int, int], ...], ...]
    points: tuple[Any, ...]
    probes: tuple[Probes, ...]  # of each axis

    @property
    def key(self) -> Any:
        """Equal for nodes of the same operator and shapes."""
        return self.node.op, self.axes, repr(self.points)


def cases(analysis: Analysis) -> Iterator[Case]:
    """The computing operators of a model, in execution order."""
    demands: dict[int, list[Demand]] = {}
    for demand in analysis.walked.facts.demands:
        demands.setdefault(demand.node, []).append(demand)
    for i, node in enumerate(analysis.graph.nodes):
        if node.idle or not any(ref is not None for ref in node.outputs):
            continue
        yield _Sizes(analysis, node, demands.get(i, [])).case()


class _Sizes:
    """The sizes of one node's operands, as polynomials in the groups' counts."""

    def __init__(self, analysis: Analysis, node: Node, demands: list[Demand]) -> None:
        self.analysis, self.node, self.demands = analysis, node, demands
        self.values = [ref.id for ref in refs((node.args, node.kwargs_values))]
        self.polys = {
            (value, dim): self._width(value, dim)
            for value in self.values
            for dim in range(analysis.walked.labels[value].rank)
        }

    def _width(self, value: int, dim: int) -> Poly:
        x = self.analysis.walked.labels[value]
        try:
            return self.analysis.grouping.width(x, dim)
        except ArithmeticError:  # a part of a group: measured at its full width
            return Poly.const(x.shape[dim])

    def case(self) -> Case:
        """The node at the points of a grid; of one point if nothing in it shrinks."""
        cells = [group.cells for group in self.analysis.groups]
        bundles = self._bundles()
        if len(bundles) > max(_FRACTIONS):
            bundles = [[pair for bundle in bundles for pair in bundle]]
        axes, kept_at = [], []
        for bundle in bundles:
            by_width: dict[int, dict[int, int]] = {}
            for eighths in _FRACTIONS[len(bundles)]:
                kept = {g: _part(cells[g], eighths) for g, _ in bundle}
                by_width[sum(factor * kept[g] for g, factor in bundle)] = kept
            axes.append(tuple(sorted(by_width)))
            kept_at.append([by_width[width] for width in axes[-1]])
        points = []
        for parts in itertools.product(*kept_at):
            counts = list(cells)
            for part in parts:
                for g, count in part.items():
                    counts[g] = count
            points.append(self._arguments(counts))
        probes = tuple(self._probes(bundle, cells) for bundle in bundles)
        return Case(self.node, tuple(axes), tuple(map(tuple, bundles)), tuple(points), probes)

    def _probes(self, bundle: list[tuple[int, int]], cells: list[int]) -> Probes:
        g, factor = bundle[0]
        found = []
        for size in _BLOCKS:
            if factor != 1 or cells[g] <= size or cells[g] % size:
                continue
            counts = (cells[g] - size, cells[g] - size + 1)
            at = [[*cells[:g], count, *cells[g + 1 :]] for count in counts]
            found.append((size, (self._arguments(at[0]), self._arguments(at[1]))))
        return tuple(found)

    def _bundles(self) -> list[list[tuple[int, int]]]:
        """Groups in the same dimensions, with the factor of each in the first of them."""
        touched: dict[int, dict[tuple[int, int], int]] = {}
        for place, poly in self.polys.items():
            for monomial, factor in poly.terms:
                for g in monomial:
                    assert isinstance(g, int), "widths are polynomials in groups alone"
                    found = touched.setdefault(g, {})
                    found[place] = found.get(place, 0) + factor
        bundles: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
        for g, places in sorted(touched.items()):
            bundles.setdefault(tuple(places), []).append((g, next(iter(places.values()))))
        return list(bundles.values())

    def _arguments(self, counts: Sequence[int]) -> Any:
        args, kwargs = list(self.node.args), dict(self.node.kwargs)
        fn = find(self.node.op)
        names = parameters(fn) if fn is not None else ()
        for demand in self.demands:
            poly = self.analysis.grouping.width(demand.labelled, demand.dim)
            width = demand.sign * poly.value(lambda g: counts[g])  # type: ignore[index]
            at = names.index(demand.arg) if demand.arg in names else len(args)
            if demand.arg in kwargs:
                kwargs[demand.arg] = _placed(kwargs[demand.arg], demand.index, width)
            elif at < len(args):
                args[at] = _placed(args[at], demand.index, width)
        plain = tuple(self._argument(arg, counts) for arg in args)
        return plain, tuple((name, self._argument(arg, counts)) for name, arg in kwargs.items())

    def _argument(self, argument: Any, counts: Sequence[int]) -> Any:
        if isinstance(argument, Ref):
            value = self.analysis.graph.values[argument.id]
            shape = (
                self.polys[argument.id, dim].value(lambda g: counts[g])  # type: ignore[index]
                for dim in range(len(value.shape))
            )
            return Operand(tuple(shape), value.dtype)
        if isinstance(argument, tuple):
            return tuple(self._argument(item, counts) for item in argument)
        if isinstance(argument, Scalar):
            return float(argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return int(argument)
        return argument


def _part(cells: int, eighths: int) -> int:
    """About ``eighths`` eighths of the units."""
    part = max(1, round(cells * eighths / 8))
    return part if part < _ALIGNED else min(cells, -(-part // _ALIGNED) * _ALIGNED)


def _placed(given: Any, index: int | None, width: int) -> Any:
    if index is None or not isinstance(given, tuple):
        return width if isinstance(given, int) and not isinstance(given, bool) else given
    if index >= len(given) or not isinstance(given[index], int) or given[index] == -1:
        return given
    return (*given[:index], width, *given[index + 1 :])
