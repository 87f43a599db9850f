"""The coordinates claimed by members of groups, checked without expanding them.

All groups share one budget of steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from planc.errors import MalformedFile
from planc.files.disk.limits import Limits
from planc.files.formats.coverage import are_distinct, repeated, smallest
from planc.ir.groups import Group, Member, Over, Run
from planc.plan.plan import Plan, PlanGroup

_AGAIN = "compile the plan again"
RUN_COST = 64  # comparing a run takes as long as expanding 64 indices
_Place = tuple[str, int]  # tensor and dimension


class Tables:
    """Shapes of tensors, and the steps spent so far."""

    def __init__(self, plan: Plan, limits: Limits) -> None:
        self.shapes = {spec.name: spec.shape for spec in plan.tensors}
        self.limits = limits
        self._spent = 0
        self._cut: set[tuple[_Place, Over | None]] = set()

    def spend(self, indices: int, where: str) -> None:
        """Charge the budget for indices about to be expanded."""
        self._spent += indices
        self.limits.check("indices", self._spent, where)

    def cut(self, member: Member, where: str) -> None:
        """Charge the cost of cutting a member's dimension, once for each range."""
        key = ((member.tensor, member.dim), member.over)
        if key not in self._cut:
            self._cut.add(key)
            self.spend(self.shapes[member.tensor][member.dim], where)
        self.spend(sum(run.length for run in member.runs), where)


def check_ranges(groups: Iterable[Group]) -> None:
    """Check that the ranges of a ragged dimension do not overlap."""
    ranges: dict[tuple[str, int, int], set[tuple[int, int]]] = {}
    for member in (member for group in groups for member in group.members):
        if member.over is not None:
            key = (member.tensor, member.dim, member.over.dim)
            ranges.setdefault(key, set()).add((member.over.start, member.over.stop))
    for (tensor, dim, over), found in ranges.items():
        for (start, stop), (following, end) in pairwise(sorted(found)):
            if following < stop:
                raise MalformedFile(
                    f"groups: {tensor}:{dim} has overlapping ranges {start}:{stop} and "
                    f"{following}:{end} of dimension {over}; {_AGAIN}"
                )


def check_membership(group: PlanGroup, where: str, tables: Tables) -> None:
    """Check that every run lies in its tensor, every unit in the first, and no index twice.

    The group has members.

    Raises:
        MalformedFile, LimitExceeded: a check fails.
    """
    places: dict[_Place, list[Member]] = {}
    for i, member in enumerate(group.members):
        _check_member(group, member, f"{where}.members[{i}]", tables)
        if group.removed:
            tables.cut(member, f"{where}.members[{i}]")
        places.setdefault((member.tensor, member.dim), []).append(member)
    first = group.members[0]
    _check_units(group, places[first.tensor, first.dim], f"{where}: {first.tensor}:{first.dim}")
    for place, members in places.items():
        size = tables.shapes[place[0]][place[1]]
        ranges: dict[Over | None, list[Run]] = {}
        for member in members:
            ranges.setdefault(member.over, []).extend(member.runs)
        dense = ranges.pop(None, [])
        named = f"{where}: {place[0]}:{place[1]}"
        for runs in ranges.values() or ([],):
            if runs:  # dense runs are compared once for each range
                tables.spend(RUN_COST * len(dense), named)
            _check_distinct(dense + runs, size, named, tables)


def _check_member(group: Group, member: Member, where: str, tables: Tables) -> None:
    if member.tensor not in tables.shapes:
        raise MalformedFile(f"{where}.tensor: {member.tensor!r} is no tensor's name; {_AGAIN}")
    shape = tables.shapes[member.tensor]
    if not 0 <= member.dim < len(shape):
        raise MalformedFile(
            f"{where}.dim: {member.dim}, {member.tensor} has shape {shape}; {_AGAIN}"
        )
    over = member.over
    if over is not None:
        apart = 0 <= over.dim < len(shape) and over.dim != member.dim
        if not apart or not 0 <= over.start < over.stop <= shape[over.dim]:
            raise MalformedFile(
                f"{where}.over: {over.dim}[{over.start}:{over.stop}] is no range of another "
                f"dimension of {member.tensor} of shape {shape}; {_AGAIN}"
            )
    if not member.runs:
        raise MalformedFile(f"{where}.runs: none, the member holds no unit; {_AGAIN}")
    size = shape[member.dim]
    for run in member.runs:
        if min(run.count, run.span, run.repeats) < 1 or run.stride < 0:
            raise MalformedFile(f"{where}.runs: {run} is empty or runs backwards; {_AGAIN}")
        if run.unit < 0 or run.unit + run.count > group.size:
            raise MalformedFile(
                f"{where}.runs: units {run.unit} to {run.unit + run.count - 1}, the group has "
                f"{group.size}; {_AGAIN}"
            )
        if smallest(run) < 0 or run.largest >= size:
            raise MalformedFile(
                f"{where}.runs: indices {smallest(run)} to {run.largest}, dimension {member.dim} "
                f"of {member.tensor} has {size}; {_AGAIN}"
            )
        if max(abs(run.step), run.stride) > tables.limits.dimension:  # even if unused
            raise MalformedFile(f"{where}.runs: {run} leaps further than any index; {_AGAIN}")


def _check_units(group: Group, members: Sequence[Member], where: str) -> None:
    """The members of a place cover every unit; the ranges of ragged ones together do."""
    reached = 0
    for run in sorted(run for member in members for run in member.runs):
        if run.unit > reached:
            break
        reached = max(reached, run.unit + run.count)
    if reached < group.size:
        raise MalformedFile(f"{where}: unit {reached} of {group.size} is missing; {_AGAIN}")


def _check_distinct(runs: Sequence[Run], size: int, where: str, tables: Tables) -> None:
    if are_distinct(runs):
        return
    length = sum(run.length for run in runs)
    if length > size:
        raise MalformedFile(f"{where}: {length} indices of {size}, some twice; {_AGAIN}")
    tables.spend(length, where)
    twice = repeated(runs, where, tables.limits)
    if twice:
        raise MalformedFile(f"{where}: {twice}; {_AGAIN}")
