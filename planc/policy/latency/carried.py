"""Rebased tables: the latency table of an original, used for the model pruned by a plan.

With it, iterative pruning needs a single measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.errors import PolicyError
from planc.plan.latency import Kept, LatencyTable
from planc.plan.origin import Origin, units_in
from planc.plan.plan import Plan, TensorSpec


@dataclass(frozen=True, slots=True)
class Carried:
    """The ``table`` of a plan's source, for the model produced by the plan ``done``."""

    table: LatencyTable
    done: Plan

    @property
    def machine(self) -> str:
        return self.table.machine

    @property
    def before(self) -> int:
        """Nanoseconds of the original."""
        return self._function()(np.array([group.cells for group in self.done.groups]))

    @property
    def after(self) -> int:
        """Nanoseconds of the pruned model."""
        return self._function()(self._left())

    def prediction(self, analysis: Analysis) -> Callable[[Kept], int]:
        """Nanoseconds as a function of the units of a row kept by each group of the pruned model.

        The remaining units of an original group without a counterpart in the pruned model stay
        fixed.

        Raises:
            PolicyError: the table was measured for another model, or the plan does not produce this
                one.
        """
        function, left = self._function(), self._left()
        self.table.check_inputs(analysis.graph.input_spec)
        tensors = tuple(TensorSpec(t.names, t.shape, t.kind) for t in analysis.graph.tensors)
        try:
            origin = Origin(self.done, tensors)
        except KeyError as error:
            raise PolicyError(
                f"the latency table is that of a model without {error}: measure this one with "
                "planc.measure_latency"
            ) from None
        parts = np.zeros((len(left), len(analysis.groups)), dtype=np.int64)
        for g, group in enumerate(analysis.groups):
            for at, candidate in enumerate(self.done.groups):
                places = {(member.tensor, member.dim) for member in candidate.members}
                head = group.members[0]
                known = (origin.names.get(head.tensor), head.dim) in places
                if known and units_in(origin, candidate, group) is not None:
                    parts[at, g] = 1
                    break
        cells = np.array([group.cells for group in analysis.groups], dtype=np.int64)
        parts[parts @ cells > left] = 0  # separated rows: the width stays fixed
        fixed = left - parts @ cells
        return lambda kept: function(fixed + parts @ kept)

    def _function(self) -> Callable[[Kept], int]:
        return self.table.function(self.done.source.structure, len(self.done.groups))

    def _left(self) -> Kept:
        return np.array([group.kept // group.rows for group in self.done.groups])
