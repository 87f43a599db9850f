"""Size equations: constraints on widths and attributes from the module's own arithmetic.

The demands of the walk, with the expressions behind the model's sizes, become :class:`Equations`:
attributes as polynomials in kept units, and the constraints beyond any attribute's reach.
"""

from __future__ import annotations

from planc.analysis.equations.collect import Collector
from planc.analysis.equations.quantities import (
    Constraint,
    Equations,
    Key,
    Operation,
    Quantity,
    operation,
)
from planc.analysis.equations.solve import Solver
from planc.analysis.grouping import Grouping
from planc.analysis.walk import Walked
from planc.ir.graph import Graph

__all__ = ["Constraint", "Equations", "Key", "Operation", "Quantity", "equations", "operation"]


def equations(graph: Graph, walked: Walked, grouping: Grouping, target: str) -> Equations:
    """The equations of plans for ``target``: "module" or "graph"."""
    found = Collector(graph, walked, grouping, target)
    found.balances()
    found.relations()
    found.demands()
    if target == "module":
        found.comparisons()
    return Solver(graph, grouping, found.found).equations(found.whole, found.numbers)
