"""Histories of Torch-Pruning as plans.

``pruner.pruning_history()`` is a list of steps ``[name, is_out, indices]``: the root layer of a
group, the pruned side, and indices of the layer as the steps before have left it. The steps are
replayed on the units of the model; nothing is run.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023; its tool couples all
parts of an attention by index, and the inside of ``nn.MultiheadAttention`` to the stream around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index as as_index
from typing import Any

import numpy as np
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.outputs import free_names, shrinking_names, with_free_outputs
from planc.compile.layers import NoSide, side_of
from planc.compile.places import Gone, Numbers, Places, settled
from planc.compile.select import Target, write_plan
from planc.errors import PolicyError
from planc.modules.given import module
from planc.plan.arguments import a_flag, options, shown, some_patterns, takes
from planc.plan.plan import Plan
from planc.policy.feasible import Conditions
from planc.policy.order import whole
from planc.trace import trace

Step = tuple[str, bool, Sequence[int]]
"""The layer's name, True for its outputs and False for its inputs, and the indices to remove."""


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    name: str
    out: bool
    indices: tuple[int, ...]

    def at(self, index: int) -> str:
        side = "outputs" if self.out else "inputs"
        return f"history[{self.number}] ({self.name!r}, {side}), index {index}"


def _steps(name: str, history: Any) -> tuple[_Step, ...]:
    """The check of a history, which may come from JSON."""
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise PolicyError(
            f"{name}: expected the list that pruner.pruning_history() returns, got {shown(history)}"
        )
    return tuple(_step(f"{name}[{number}]", number, step) for number, step in enumerate(history))


def _step(what: str, number: int, step: Any) -> _Step:
    expected = f"{what}: expected [name, is_out, indices], got {shown(step)}"
    if not isinstance(step, Sequence) or len(step) != 3:
        raise PolicyError(expected)
    name, out, indices = step
    if not isinstance(name, str) or not isinstance(out, bool) or isinstance(indices, str | bytes):
        raise PolicyError(expected)
    try:
        return _Step(number, name, out, tuple(as_index(i) for i in indices))
    except (TypeError, ValueError):
        raise PolicyError(expected) from None


@takes(
    model=module,
    history=_steps,
    free_outputs=some_patterns,
    target=options("module", "graph", error=PolicyError),
    strict=a_flag,
)
def from_history(
    model: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    history: Sequence[Step],
    free_outputs: str | Sequence[str] = (),
    target: Target = "module",
    strict: bool = False,
) -> Plan:
    """Read a history of Torch-Pruning as a plan for the original model.

    ::

        history = pruner.pruning_history()  # or json.load of what was stored
        plan = planc.from_history(original, images, history=history)

    The plan follows the history. Where Torch-Pruning has cut a tensor otherwise, its own model is
    broken; :func:`planc.recover` compares the tensors of the two.

    Args:
        model: the module before Torch-Pruning has pruned it.
        args, kwargs: example inputs, as for :func:`planc.compile`.
        history: steps ``[name, is_out, indices]``; the indices are those of the layer after all
            steps before.
        free_outputs: names of the results that may shrink, as for :func:`planc.compile`.
        target, strict: as for :func:`planc.compile`.

    Returns:
        The plan of all steps together; :func:`planc.apply` gives the tensors of the pruned model.

    Raises:
        PolicyError: the history cannot be that of a working model; names the step and the first
            wrong index, with the reason.
        TraceError, AnalysisError: as for :func:`planc.compile`.
    """
    steps: tuple[_Step, ...] = history  # type: ignore[assignment]  # converted by _steps
    graph = trace(model, args, kwargs)
    free = free_names(graph, None, tuple(free_outputs))
    while True:  # a plan lists the outputs that shrink, and is made for these alone
        analysis = analyze(with_free_outputs(graph, free) if free else graph, strict)
        replay = _Replay(analysis, model)
        for step in steps:
            replay.take(step)
        plan = replay.plan(target)
        if free == (free := shrinking_names(graph, plan.outputs)):
            return plan


@dataclass(eq=False)
class _Replay:
    """The units removed so far, each with the step and the index that removed it."""

    analysis: Analysis
    model: nn.Module
    removed_by: dict[int, tuple[_Step, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = Places(self.analysis)
        self._count = self.analysis.grouping.index.count
        self._gone: Gone = np.zeros(self._count + 1, dtype=bool)
        named = self.model.named_modules()
        self._attention = [name for name, own in named if isinstance(own, nn.MultiheadAttention)]

    def take(self, step: _Step) -> None:
        """Remove the units of a step, and those that Torch-Pruning removes with them."""
        before = self._gone.copy()
        for unit, index in self._chosen(step).items():
            self._remove(unit, (step, index))
        for name in self._attention:
            self._inside(name, before)
        for g, inside in self._places.cells.items():
            if self.analysis.groups[g].kind == "heads":
                self._alike(inside, before)

    def _remove(self, unit: int, by: tuple[_Step, int]) -> None:
        self._gone[unit] = True
        self.removed_by.setdefault(unit, by)

    def _chosen(self, step: _Step) -> dict[int, int]:
        """The units of a step with their first indices."""
        tensor, dim, line = self._line(step)
        outer = self._places.heads(tensor, dim)
        left = np.flatnonzero(~np.any([self._gone[own] for own in (line, *outer)], axis=0))
        self._check_indices(step, len(left))
        heads, inside = _whole_heads([own[left] for own in outer], set(step.indices), self._count)
        found = heads
        for index in step.indices:
            unit = int(line[left[index]])
            if index in inside:
                continue
            if unit == self._count:
                raise PolicyError(f"{step.at(index)}: {self._pinned(tensor, dim)}")
            found.setdefault(unit, index)
        self._check_whole(step, line[left], {*step.indices} | inside, found)
        return found

    def _check_indices(self, step: _Step, left: int) -> None:
        seen: set[int] = set()
        for index in step.indices:
            if not 0 <= index < left:
                again = self._recorded_twice(step)
                raise PolicyError(f"{step.at(index)}: the layer then has {left} left{again}")
            if index in seen:
                raise PolicyError(f"{step.at(index)}: it is named twice")
            seen.add(index)

    def _check_whole(
        self, step: _Step, units: Numbers, seen: set[int], found: Mapping[int, int]
    ) -> None:
        for other in np.flatnonzero(np.isin(units, list(found))).tolist():
            if other not in seen:
                raise PolicyError(
                    f"{step.at(found[int(units[other])])}: index {other} belongs to the same unit "
                    "and would stay"
                )

    def _recorded_twice(self, step: _Step) -> str:
        """The likely cause of indices beyond the end."""
        before = {by.name for by, _ in self.removed_by.values() if by.number == step.number - 1}
        if before != {step.name}:
            return ""
        return "; Group.prune(idxs=...) records a step twice: leave this one out"

    def _line(self, step: _Step) -> tuple[str, int, Numbers]:
        """The dimension of a step, and the unit at each of its indices in the original model."""
        try:
            name, dim = side_of(self.model, step.name, step.out)
            tensor = self.analysis.graph.tensor(name)
        except NoSide as error:
            raise PolicyError(f"history[{step.number}]: {error}") from None
        except KeyError:
            raise PolicyError(
                f"history[{step.number}] ({step.name!r}): the model runs without a tensor of it"
            ) from None
        ranges = self._places.ranges(tensor.name, dim)
        lines = [self._places.line(tensor.name, dim, over) for over in ranges or (None,)]
        return tensor.name, dim, np.concatenate(lines)

    def _pinned(self, tensor: str, dim: int) -> str:
        pins = [pin.reason for pin in self.analysis.pins if (pin.tensor, pin.dim) == (tensor, dim)]
        return f"{tensor}:{dim} never loses it: {pins[0]}" if pins else f"{tensor}:{dim} keeps it"

    def _inside(self, name: str, before: Gone) -> None:
        """Cut the projections of an attention at the indices that its stream has lost."""
        stream = self._whole_line(f"{name}.out_proj.weight", 0)
        lost = np.flatnonzero((self._gone & ~before)[stream])
        if not lost.size:
            return
        projections = [
            f"{name}.{part}"
            for part in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
            if getattr(self.model.get_submodule(name), part) is not None
        ]
        for own in (*((p, 0) for p in projections), (f"{name}.out_proj.weight", 1)):
            line = self._whole_line(*own)
            for start in range(0, len(line), len(stream)):
                for at in lost.tolist():
                    by = self.removed_by[int(stream[at])]
                    unit = int(line[start + at])
                    if unit == self._count:
                        raise PolicyError(f"{by[0].at(by[1])}: {self._pinned(*own)}")
                    self._remove(unit, by)

    def _whole_line(self, tensor: str, dim: int) -> Numbers:
        return self._places.line(self.analysis.graph.tensor(tensor).name, dim)

    def _alike(self, inside: Mapping[int, Numbers], before: Gone) -> None:
        """Remove the same cells of queries, keys and values."""
        offsets = self.analysis.grouping.index.offsets
        new = self._gone & ~before
        for g, heads in inside.items():
            for cell in np.flatnonzero(new[offsets[g] : offsets[g + 1]]).tolist():
                by = self.removed_by[int(offsets[g]) + cell]
                for other, of in inside.items():
                    if not np.array_equal(of, heads):
                        raise PolicyError(
                            f"{by[0].at(by[1])}: {self.analysis.groups[g]} and "
                            f"{self.analysis.groups[other]} are parts of one attention and have "
                            "other cells; give planc.compile(..., remove=) the indices of each"
                        )
                    self._remove(int(offsets[other]) + cell, by)

    def plan(self, target: Target) -> Plan:
        """The plan of all steps.

        Raises:
            PolicyError: the model cannot run without the units.
        """
        gone = settled(self._places, self._gone)
        index, groups = self.analysis.grouping.index, self.analysis.groups
        for g, own in enumerate(index.split(gone)):
            self._check_rows(g, own)
        self._check_groups_of_convolutions()
        try:
            return write_plan(self.analysis, index.removed(gone), target, "history", "from_history")
        except PolicyError as error:
            pairs = zip(groups, index.split(gone), strict=True)
            kept = np.array([g.cells - int(own.sum()) // g.rows for g, own in pairs])
            removed = self._of(self._bound(kept, target))
            if not removed:
                raise
            step, given = self.removed_by[removed[0]]
            raise PolicyError(f"{step.at(given)}: {error}") from None

    def _check_groups_of_convolutions(self) -> None:
        """Raise PolicyError if groups of a convolution lose inputs at different positions."""
        for tensor in self.analysis.graph.tensors:
            overs = self._places.ranges(tensor.name, 1)
            lines = [self._places.line(tensor.name, 1, over) for over in overs]
            lost = [self._gone[line] for line in lines]
            units = {
                int(unit)
                for line, own in zip(lines, lost, strict=True)
                for unit in line[own & ~lost[0]]
            }
            if (first := next((u for u in self.removed_by if u in units), None)) is not None:
                step, given = self.removed_by[first]
                raise PolicyError(
                    f"{step.at(given)}: Torch-Pruning cuts {tensor.name} in all groups at the "
                    "positions of the first group, and this one stays there; "
                    "planc.compile(..., remove=) takes other positions"
                )

    def _of(self, groups: Iterable[int]) -> list[int]:
        """The removed units of groups, in the order of their removal."""
        offsets = self.analysis.grouping.index.offsets
        return [u for u in self.removed_by if any(offsets[g] <= u < offsets[g + 1] for g in groups)]

    def _bound(self, kept: Numbers, target: Target) -> set[int]:
        """The groups of the first condition that the counts violate."""
        equations, cells = self.analysis.equations(target), whole(self.analysis)
        for g in equations.whole:
            if kept[g] != cells[g]:
                return {g}
        broken = Conditions(equations.constraints, cells).broken(kept)
        return set(equations.constraints[broken[0]].groups) if broken else set()

    def _check_rows(self, g: int, gone: Gone) -> None:
        """Raise PolicyError if rows lose unequal numbers of units, or one loses all."""
        group, offset = self.analysis.groups[g], int(self.analysis.grouping.index.offsets[g])
        lost = gone.reshape(group.rows, -1).sum(axis=1)
        most = min(int(lost.min()), group.cells - 1)
        if int(lost.max()) == most:
            return
        counts = [0] * group.rows
        for unit in self._of([g]):
            row = (unit - offset) // group.cells
            counts[row] += int(gone[unit - offset])
            if counts[row] > most:
                step, given = self.removed_by[unit]
                some = f"row {row} of {group}" if group.rows > 1 else f"group {group}"
                why = "another row loses" if group.rows > 1 else "it may lose"
                raise PolicyError(f"{step.at(given)}: {some} loses more than the {most} that {why}")


def _whole_heads(
    lines: Iterable[Numbers], indices: set[int], none: int
) -> tuple[dict[int, int], set[int]]:
    """The heads that indices cover, each with its first index, and the indices inside them."""
    found: dict[int, int] = {}
    inside: set[int] = set()
    for line in lines:
        for head in np.unique(line[sorted(indices - inside)]).tolist() if indices else ():
            own = np.flatnonzero(line == head).tolist()
            if head != none and indices - inside >= {*own}:
                found[head] = own[0]
                inside |= {*own}
    return found, inside
