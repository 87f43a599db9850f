"""The shapes after applying a plan, of every tensor cut by it.

They equal the shapes of :attr:`planc.plan.plan.Plan.cuts`, but are counted without expanding
indices, so that an untrusted plan costs little.
"""

from __future__ import annotations

from itertools import pairwise

from planc.errors import MalformedFile
from planc.files.formats.coverage import Chosen, count
from planc.files.formats.membership import RUN_COST, Tables
from planc.ir.units import marked
from planc.plan.plan import Plan

Shape = tuple[int, ...]
_AGAIN = "compile the plan again"
_Dim = tuple[str, int]  # tensor and dimension


def shapes_after(plan: Plan, tables: Tables) -> dict[str, Shape]:
    """The shape of each tensor cut by the plan, by its first name.

    Raises:
        MalformedFile: ranges keep different numbers of indices or do not cover a dimension; a
            dimension keeps no index, or is ragged over a ragged one.
        LimitExceeded: counting takes too long, or too much memory.
    """
    dense, ragged = _removed(plan)
    after = {name: list(tables.shapes[name]) for name, _ in [*dense, *(key[:2] for key in ragged)]}
    for (name, dim), chosen in dense.items():
        after[name][dim] -= _count(chosen, f"groups: {name}:{dim}", tables)
    overs: dict[str, list[tuple[int, int]]] = {}
    for (name, dim, over), ranges in ragged.items():
        overs.setdefault(name, []).append((over, dim))
        shape = tables.shapes[name]
        where = f"groups: {name}:{dim}"
        also = dense.get((name, dim), [])
        kept = {shape[dim] - _count([*own, *also], where, tables) for own in ranges.values()}
        if len(kept) > 1:
            raise MalformedFile(
                f"groups: {name}: ranges of dimension {over} keep {sorted(kept)} indices; {_AGAIN}"
            )
        ordered = sorted(ranges)
        covered = all(stop == start for (_, stop), (start, _) in pairwise(ordered))
        if not covered or ordered[0][0] != 0 or ordered[-1][1] != shape[over]:
            raise MalformedFile(
                f"groups: {name}: ranges do not cover dimension {over} of {shape[over]}; {_AGAIN}"
            )
        after[name][dim] = kept.pop()
    for name, sizes in after.items():
        _check_shape(name, tables.shapes[name], sizes)
        _check_overs(name, overs.get(name, []))
    return {name: tuple(sizes) for name, sizes in after.items()}


def _removed(
    plan: Plan,
) -> tuple[
    dict[_Dim, list[Chosen]], dict[tuple[str, int, int], dict[tuple[int, int], list[Chosen]]]
]:
    """The runs removed from each dimension, everywhere or in ranges of another one."""
    dense: dict[_Dim, list[Chosen]] = {}
    ragged: dict[tuple[str, int, int], dict[tuple[int, int], list[Chosen]]] = {}
    for group in plan.groups:
        if not group.removed:
            continue
        gone = marked(group.removed, group.size)
        for member in group.members:
            chosen = [(run, gone) for run in member.runs]
            over = member.over
            if over is None:
                dense.setdefault((member.tensor, member.dim), []).extend(chosen)
            else:
                ranges = ragged.setdefault((member.tensor, member.dim, over.dim), {})
                ranges.setdefault((over.start, over.stop), []).extend(chosen)
    return dense, ragged


def _count(chosen: list[Chosen], where: str, tables: Tables) -> int:
    tables.spend(RUN_COST * len(chosen), where)
    return count(chosen, where, tables.limits)


def _check_shape(name: str, before: Shape, after: list[int]) -> None:
    for dim, (size, source) in enumerate(zip(after, before, strict=True)):
        if size < 1 and source > 0:
            raise MalformedFile(
                f"groups: {name} would have shape {tuple(after)} of {before}, dimension {dim} "
                f"must keep an index; {_AGAIN}"
            )


def _check_overs(name: str, overs: list[tuple[int, int]]) -> None:
    ragged = {dim for _, dim in overs}
    if len(ragged) < len(overs) or any(over in ragged for over, _ in overs):
        raise MalformedFile(
            f"groups: {name} would be ragged in (dimension, over) "
            f"{[(dim, over) for over, dim in overs]}, one over another; {_AGAIN}"
        )
