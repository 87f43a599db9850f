"""The analysis of a graph: groups, pins with reasons, constraints, cost, predicted shapes.

``analyze`` is a pure function of the graph; what takes time and is not always asked for (the cost
model, reasons of pins, size equations) is computed when first looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planc.analysis.columns import Columns, Line
from planc.analysis.cost import CostModel, cost_model
from planc.analysis.equations import Constraint, Equations, Operation, equations
from planc.analysis.grouping import MODULE_ONLY, PINNED, Grouping, group_units
from planc.analysis.places import Places, offsets_of, places
from planc.analysis.polynomials import Poly, Variable
from planc.analysis.reasons import Pin, explain, pins
from planc.analysis.walk import Walked, walk
from planc.errors import AnalysisError
from planc.ir.collection import paused_collection
from planc.ir.graph import Graph, Node
from planc.ir.groups import Group, apart, joined
from planc.plan.arguments import a_flag, instance, takes
from planc.rules.labels import Labelled

Gone = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bound:
    """What must hold of the widths of ``groups`` (by their place in the analysis), and the operator
    that wants it, with its module and line.
    """

    groups: tuple[int, ...]
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text}, for {self.reason}"


@dataclass(frozen=True, eq=False)
class Analysis:
    """What can be removed from a traced model together, and what cannot be and why."""

    graph: Graph
    walked: Walked
    grouping: Grouping

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order of the model's tensors."""
        return self.grouping.groups

    @property
    def unknown(self) -> tuple[Node, ...]:
        """Operators without a rule: what they touch is pinned."""
        return tuple(self.graph.nodes[i] for i in self.walked.facts.unknown)

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """The dimensions of tensors that are never removed, whole or in part, with reasons."""
        return pins(self.graph, self.walked, self.grouping)

    @cached_property
    def cost(self) -> CostModel:
        """MACs, parameters and bytes as polynomials in the groups' widths."""
        return cost_model(self.graph, self.walked, self.grouping)

    @cached_property
    def widths(self) -> tuple[Poly, ...]:
        """The widths of all dimensions of parameters and buffers that can shrink, each once."""
        of = (
            self.grouping.width(self.walked.labels[tensor.value], dim)
            for tensor in self.graph.tensors
            for dim in range(len(tensor.shape))
        )
        return tuple(dict.fromkeys(poly for poly in of if poly.constant is None))

    @cached_property
    def places(self) -> Places:
        """Where the units of all groups stand in the parameters."""
        return places(self.graph, self.walked.facts.slots, self.grouping)

    @cached_property
    def _equations(self) -> dict[str, Equations]:
        return {}

    def equations(self, target: str) -> Equations:
        """The size equations that bind a plan for ``target`` ("module" or "graph")."""
        if target not in self._equations:
            found = equations(self.graph, self.walked, self.grouping, target)
            self._equations[target] = found
        return self._equations[target]

    def explain(self, tensor: str, dim: int) -> list[str]:
        """Why a dimension of a tensor is coupled to others, or pinned: lines for people.

        Raises:
            AnalysisError: there is no such tensor or dimension.
        """
        lines = explain(self.graph, self.walked, self.grouping, tensor, dim)
        found = self.graph.tensor(tensor)
        width = self.walked.labels[found.value].targeting(dim % len(found.shape))
        groups = {int(g) for la in width for g in np.unique(self.grouping.group[la.atoms])}
        bound = [bound for bound in self.bounds("module") if groups.intersection(bound.groups)]
        graph = {str(bound) for bound in self.bounds("graph")}
        for entry in bound:
            lines.append(f"{entry}" + ("" if str(entry) in graph else " (for the module only)"))
        followers = {
            ".".join(filter(None, key[:2])): poly.text(self._kept)
            for key, poly in self.equations("module").attributes.items()
            if groups.intersection(poly.variables)
        }
        return lines + [f"attribute {name} is {text}" for name, text in sorted(followers.items())]

    def bounds(self, target: str) -> tuple[Bound, ...]:
        """What binds the widths of groups in a plan for ``target``, that no attribute can lift."""
        equations = self.equations(target)
        whole = (
            Bound((g,), f"{self.groups[g].name} stays whole", reason)
            for g, reason in sorted(equations.whole.items())
        )
        constraints = (
            Bound(
                tuple(sorted(constraint.groups)),
                self._statement(constraint),
                constraint.reason,
            )
            for constraint in equations.constraints
        )
        return (*whole, *constraints)

    def _statement(self, constraint: Constraint) -> str:
        left, right = constraint.left, constraint.right
        if isinstance(left, Operation) and left.op == "//" and right == Poly.const(0):
            return f"{left.args[0].text(self._kept)} >= 0"  # divided by more than it can be
        return f"{left.text(self._kept)} = {right.text(self._kept)}"

    def _kept(self, variable: Variable) -> str:
        assert isinstance(variable, int)
        return f"kept {self.groups[variable].name}"

    def gone(self, removed: Sequence[Sequence[int]]) -> Gone:
        """Which atoms vanish when ``removed[g]`` are the units that group ``g`` loses."""
        offsets = self.flat[0]
        lost = np.zeros(int(offsets[-1]) + 1, dtype=bool)
        for g, units in enumerate(removed):
            lost[offsets[g] + np.asarray(units, dtype=np.int64)] = True
        return lost[self.flat[1]]

    @cached_property
    def flat(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each group's units begin when all are numbered through, and the number of each
        atom's unit; of pinned atoms one past the last.
        """
        offsets, group = offsets_of(self.groups), self.grouping.group
        flat = offsets[np.maximum(group, 0)] + self.grouping.unit
        return offsets, np.where(group == PINNED, offsets[-1], flat)

    def shapes(self, gone: Gone) -> list[tuple[int, ...]]:
        """The predicted shape of every value once the atoms ``gone`` have vanished."""
        units = np.zeros(int(self.flat[0][-1]) + 1, dtype=bool)
        units[self.flat[1]] = gone
        columns, uses = self.columns
        lost = columns.lost(units).tolist()
        shapes = [labelled.shape for labelled in self.walked.labels]
        for value, dims in uses.items():
            shape = list(shapes[value])
            for dim, column in dims.items():
                shape[dim] -= lost[column]
            shapes[value] = tuple(shape)
        return shapes

    @cached_property
    def columns(self) -> tuple[Columns, Mapping[int, Mapping[int, int]]]:
        """The columns of units, numbered through over all groups, that dimensions of values have;
        and which column each dimension of each value has.
        """
        flat = self.flat[1]
        found: dict[tuple[bytes, ...], int] = {}
        columns: list[tuple[Line, ...]] = []
        uses: dict[int, dict[int, int]] = {}
        for value, labelled in enumerate(self.walked.labels):
            for dim in sorted({layer.target for layer in labelled.layers}):
                lines = tuple(layer.along() for layer in labelled.targeting(dim))
                known = found.setdefault(tuple(line.tobytes() for line in lines), len(found))
                if known == len(columns):
                    columns.append(tuple(flat[line] for line in lines))
                uses.setdefault(value, {})[dim] = known
        distinct, numbers = Columns(int(self.flat[0][-1])).joined(columns)
        return distinct, {
            value: {dim: numbers[known] for dim, known in dims.items()}
            for value, dims in uses.items()
        }

    def mixing(self, g: int, target: str) -> str:
        """Why removing units of group ``g`` is not the same as zeroing them, every reason once;
        empty where it is.
        """
        reasons = apart(self.groups[g].mixing)
        if target == "graph":
            reasons = [reason for reason in reasons if not reason.startswith(MODULE_ONLY)]
        found = [reason.removeprefix(MODULE_ONLY) for reason in reasons]
        return joined([*found, *apart(self.equations(target).mixing.get(g, ""))])


def predicted_shape(x: Labelled, gone: Gone) -> tuple[int, ...]:
    """The shape of a labelled value once the atoms ``gone`` have vanished."""
    shape = list(x.shape)
    for dim in {layer.target for layer in x.layers}:
        first, *others = (layer.along() for layer in x.targeting(dim))
        lost = gone[first]
        for line in others:
            lost = lost | gone[line]
        shape[dim] -= int(np.count_nonzero(lost))
    return tuple(shape)


@takes(
    graph=instance(
        "a planc.ir.graph.Graph", Graph, advice="give what planc.trace returns", error=AnalysisError
    ),
    strict=a_flag,
)
def analyze(graph: Graph, strict: bool = False) -> Analysis:
    """Derives the dependency groups of a graph.

    Args:
        graph: what :func:`planc.trace` returns.
        strict: an operator without a rule is an error rather than a pin.

    Raises:
        AnalysisError: an operator has no rule (``strict``); names it, the module and the line.
    """
    with paused_collection():
        walked = walk(graph, strict)
        return Analysis(graph, walked, group_units(graph, walked))
