"""The cost model: MACs, parameters and bytes as exact polynomials in kept units.

One multiply-accumulate of a convolution or matrix product is one MAC, or two FLOPs in
``torch.utils.flop_counter.FlopCounterMode``; other operators are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planc.analysis.grouping import Grouping
from planc.analysis.polynomials import Monomial, Poly, by_group, product
from planc.analysis.walk import Walked
from planc.ir.graph import Graph
from planc.plan.plan import Cost
from planc.rules.labels import Labelled


@dataclass(frozen=True, eq=False)
class CostModel:
    """``macs``, ``params`` and ``bytes`` of a model, in the units kept per row of each group."""

    macs: Poly
    params: Poly
    bytes: Poly

    def price(self, kept: Sequence[int]) -> Cost:
        """The cost with ``kept[g]`` units in each row of group ``g``."""
        of = by_group(kept)
        return Cost(self.macs.value(of), self.params.value(of), self.bytes.value(of))


def cost_model(graph: Graph, walked: Walked, grouping: Grouping) -> CostModel:
    """The cost model of a graph; tied parameters count once, buffers not at all."""
    width = _widths(grouping)
    macs: dict[Monomial, int] = {}
    params: dict[Monomial, int] = {}
    size: dict[Monomial, int] = {}

    for cost in walked.facts.products:
        _add(macs, product(width(x, d) for x, d in cost.widths), cost.factor)
    for tensor in graph.tensors:
        if tensor.kind == "parameter":
            x = walked.labels[tensor.value]
            count = product(width(x, d) for d in range(x.rank))
            _add(params, count, 1)
            _add(size, count, tensor.itemsize)
    return CostModel(Poly.of(macs), Poly.of(params), Poly.of(size))


def macs_by_module(graph: Graph, walked: Walked, grouping: Grouping) -> dict[str, Poly]:
    """The MACs of the operators in each module, by its path; their sum is that of the model."""
    width = _widths(grouping)
    found: dict[str, dict[Monomial, int]] = {}
    for cost in walked.facts.products:
        total = found.setdefault(graph.nodes[cost.node].module, {})
        _add(total, product(width(x, d) for x, d in cost.widths), cost.factor)
    return {module: Poly.of(total) for module, total in found.items()}


def _widths(grouping: Grouping) -> Callable[[Labelled, int], Poly]:
    """The width of a value along a dimension; each is computed once."""
    known: dict[tuple[int, int], Poly] = {}

    def width(x: Labelled, dim: int) -> Poly:
        if not x.layers:
            return Poly.const(x.shape[dim])
        key = (id(x), dim)
        if key not in known:
            known[key] = grouping.width(x, dim)
        return known[key]

    return width


def _add(total: dict[Monomial, int], poly: Poly, factor: int) -> None:
    for monomial, c in poly.terms:
        total[monomial] = total.get(monomial, 0) + c * factor
