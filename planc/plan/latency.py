"""Latency tables: the time of each operator of a model as a function of widths.

The prediction for given counts is the sum over the operators, each interpolated linearly between
its measured widths, in steps for an operator working on blocks. A table belongs to one structure,
input size and machine. Pure data and NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planc.errors import PolicyError
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Natural
from planc.plan.specification import inputs_text, without_values

if TYPE_CHECKING:
    from planc.analysis import Analysis

if TYPE_CHECKING:
    from planc.analysis import Analysis

Kept = NDArray[np.int64]


class Prediction(Protocol):
    """The interface of latency budgets: a :class:`LatencyTable`, or a rebased one."""

    @property
    def machine(self) -> str:
        """The measured processor."""

    def prediction(self, analysis: Analysis) -> Callable[[Kept], int]:
        """Nanoseconds as a function of the units of a row kept by each group of a model."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Nanoseconds of an operator at all combinations of widths, the last axis fastest.

    ``axes[i]`` are rising widths; there are no axes for an operator of constant time. Along an
    axis, the operator works on ``blocks[i]`` channels at once: a partly filled block takes as long
    as a full one.
    """

    operator: str
    axes: tuple[tuple[Natural, ...], ...]
    nanoseconds: tuple[Natural, ...]
    blocks: tuple[Natural, ...] = ()  # 1 each if empty


@dataclass(frozen=True, slots=True)
class Use:
    """A node with the times of grid number ``grid``.

    Its width along axis i is the sum over ``widths[i]``, pairs of a group and a factor, of the
    factor times the group's units of a row.
    """

    grid: Natural
    widths: tuple[tuple[tuple[Natural, Natural], ...], ...]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured times of a model's operators.

    Args:
        structure: the digest of the groups.
        inputs: the specification of the example inputs (:mod:`planc.plan.specification`).
        machine: the measured processor.
        threads: the number of its threads used.
        rest: the model's time beyond its operators, in nanoseconds.
        grids: the measured times, each used by one or more operators.
        uses: the operators of the model with their grids and widths.
        unmeasured: operators unable to run by themselves.
    """

    structure: bytes
    inputs: Any
    machine: str
    threads: int
    rest: int
    grids: tuple[Grid, ...]
    uses: tuple[Use, ...]
    unmeasured: tuple[str, ...]

    def prediction(self, analysis: Analysis) -> Callable[[Kept], int]:
        """Nanoseconds as a function of the units of a row kept by each group.

        Raises:
            PolicyError: the table was measured for another model, or for other inputs.
        """
        function = self.function(structure_digest(analysis.groups), len(analysis.groups))
        self.check_inputs(analysis.graph.input_spec)
        return function

    def check_inputs(self, inputs: Any) -> None:
        """Raise PolicyError if the table was measured for inputs of other shapes or types."""
        if without_values(inputs) != self.inputs:
            raise PolicyError(
                f"the latency table was measured for inputs {inputs_text(self.inputs)}, the plan "
                f"is made with {inputs_text(inputs)}: give inputs as they were measured, or "
                "measure with these"
            )

    def function(self, structure: bytes, groups: int) -> Callable[[Kept], int]:
        """The same for a model of ``groups`` groups with the digest ``structure``."""
        if structure != self.structure:
            raise PolicyError(
                "the latency table was measured for a model of another structure (groups "
                f"{self.structure.hex()[:16]}, this one has {structure.hex()[:16]}): measure this "
                "one with planc.measure_latency, or planc measure on the command line"
            )
        highest = max((g for use in self.uses for axis in use.widths for g, _ in axis), default=0)
        if highest >= max(1, groups):
            raise PolicyError(
                f"the latency table speaks of group {highest}, the model has {groups}: measure "
                "this one with planc.measure_latency, or planc measure on the command line"
            )
        by_grid: dict[int, list[Use]] = {}
        for use in self.uses:
            by_grid.setdefault(use.grid, []).append(use)
        parts = [_Interpolation(self.grids[grid], uses, groups) for grid, uses in by_grid.items()]
        return lambda kept: round(self.rest + sum(part(kept) for part in parts))


class _Interpolation:
    """The sum over all uses of one grid."""

    def __init__(self, grid: Grid, uses: Sequence[Use], groups: int) -> None:
        self.axes = [np.array(axis, dtype=np.float64) for axis in grid.axes]
        shape = tuple(len(axis) for axis in grid.axes)
        self.blocks = grid.blocks or (1,) * len(grid.axes)
        self.table = np.array(grid.nanoseconds, dtype=np.float64).reshape(shape)
        self.count = len(uses)
        self.factors = [np.zeros((len(uses), groups)) for _ in grid.axes]
        for row, use in enumerate(uses):
            for axis, pairs in enumerate(use.widths):
                for g, factor in pairs:
                    self.factors[axis][row, g] = factor

    def __call__(self, kept: Kept) -> float:
        # one axis after the other: between two neighbours, extrapolated beyond the outermost two
        found = np.broadcast_to(self.table, (self.count, *self.table.shape))
        rows = np.arange(self.count)
        for axis, factors, block in zip(self.axes, self.factors, self.blocks, strict=True):
            if len(axis) == 1:
                found = found[:, 0]
                continue
            widths = factors @ kept
            widths = np.minimum(np.ceil(widths / block) * block, np.maximum(widths, axis[-1]))
            at = np.clip(np.searchsorted(axis, widths) - 1, 0, len(axis) - 2)
            along = (widths - axis[at]) / (axis[at + 1] - axis[at])
            along = along.reshape(-1, *(1,) * (found.ndim - 2))
            found = found[rows, at] * (1 - along) + found[rows, at + 1] * along
        return float(np.maximum(found, 0).sum())
