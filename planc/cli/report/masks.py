"""Mask plans and their differences as screens and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Group as Stack
from rich.text import Text

from planc.cli.report.plain import plain_data
from planc.cli.report.plan import origin_lines
from planc.cli.report.screen import (
    CAUTION,
    KEPT,
    REMOVED,
    STRONG,
    bar,
    counted,
    fact,
    hanging,
    line,
    screen,
)
from planc.cli.report.table import Column, Entry, table
from planc.plan.maskdiff import MaskPlanDiff, TensorMaskDiff
from planc.plan.masks import MaskPlan, TensorMask
from planc.plan.plan import Provenance
from planc.plan.review.figures import figure, share
from planc.plan.review.rows import series, staged
from planc.plan.review.summary import origin_text

_TABLE = 28


def masks_screen(masks: MaskPlan, width: int, full: bool = False) -> Stack:
    """Return the lines of ``planc show``: the origin of a mask plan, and each tensor's losses.

    Args:
        full: one row for each tensor, also for like ones.
    """
    header = fact("fingerprint", masks.fingerprint[:16], width)
    for entry in masks.provenance:
        header += origin_lines(entry, width)
    if masks.requires:
        header += fact("requires", ", ".join(masks.requires), width)
    kept = masks.size - masks.removed
    text = f"{masks}, {share(masks.size, kept)}"
    entries = [_entry(masks, full, *row) for row in _rows(masks, full)]
    columns = [Column("shape"), Column("elements"), Column("kept", arrow=True, style=KEPT)]
    columns += [Column("removed", style=REMOVED)]
    hidden = [] if full else entries[_TABLE:]
    shown = table("tensor", columns, entries[: len(entries) - len(hidden)], width)
    more = [line(f"and {counted(len(hidden), 'row')} more: --full lists all")] if hidden else []
    return screen([header, hanging(text, width, style=STRONG), [*shown, *more]])


def _rows(masks: MaskPlan, full: bool) -> list[tuple[str, str, list[TensorMask]]]:
    """Stage, label and masks of each row; without ``full``, like tensors share one."""
    if full:
        return [("", mask.tensor, [mask]) for mask in masks.masks]
    equal, like = (
        [
            (mask.tensor, (masks.specs[mask.tensor].shape, mask.count * counts), mask)
            for mask in masks.masks
        ]
        for counts in (1, 0)
    )
    found = series(equal)
    found = found if len(found) <= _TABLE else series(like)
    stages = staged([label for label, *_ in found])
    return [(stage, found[i][0], found[i][2]) for stage, i in stages]


def _entry(
    masks: MaskPlan, full: bool, stage: str, label: str, members: Sequence[TensorMask]
) -> Entry:
    """A row: the shape of each tensor, its elements and the mean number of those kept."""
    shape = masks.specs[members[0].tensor].shape
    size = math.prod(shape)
    kept = round(size - sum(mask.count for mask in members) / len(members))
    before, after = (f"{size:,}", f"{kept:,}") if full else (figure(size), figure(kept))
    inner = label[len(stage) + 1 :] if stage else label
    cells = (" × ".join(map(str, shape)), before, after, share(size, kept))
    return Entry(inner, cells, partial(bar, kept, size), stage)


def masks_json(masks: MaskPlan) -> dict[str, Any]:
    """Return the same as plain data; ``bitmap`` is hexadecimal, lowest bit first, in C order."""
    return {
        "fingerprint": masks.fingerprint,
        "removed": masks.removed,
        "size": masks.size,
        "masks": [
            {
                "tensor": mask.tensor,
                "shape": list(masks.specs[mask.tensor].shape),
                "removed": mask.count,
                "bitmap": mask.removed.hex(),
            }
            for mask in masks.masks
        ],
        "provenance": plain_data(masks.provenance),
        "requires": list(masks.requires),
    }


def masks_diff_screen(
    diff: MaskPlanDiff, names: tuple[str, str], width: int, full: bool = False
) -> Stack:
    """Return the lines of ``planc diff`` for two mask plans, with their differences only."""
    if not diff:
        return Stack(line(f"{names[0]} and {names[1]} are equal"))
    header = [line((f"a  {names[0]}", REMOVED)), line((f"b  {names[1]}", KEPT))]
    if diff.source is not None:
        header += fact("made for", f"different tensors: {diff.source}", width, CAUTION)
    for side, entries in zip("ab", diff.provenance or ((), ()), strict=True):
        header += _origins(side, entries, width)
    if diff.others:
        header += fact("also differ", ", ".join(diff.others), width)
    a, b = diff.removed
    head = line((f"elements removed  {a:,} → {b:,}", STRONG))
    return screen([header, [head], _differences(diff.tensors, width, full)])


def _origins(side: str, entries: Sequence[Provenance], width: int) -> list[Text]:
    return [part for e in entries for part in fact(f"{side} made by", origin_text(e), width)]


def _differences(tensors: Sequence[TensorMaskDiff], width: int, full: bool) -> list[Text]:
    """A row for each tensor: elements removed by both, and by only one; like names together."""
    columns = [Column("in both"), Column("only in a", style=REMOVED), Column("only in b")]
    items = [(t.name, t.name if full else "", t) for t in tensors]
    entries = []
    for label, _, members in series(items):
        sums = (sum(getattr(t, side) for t in members) for side in ("both", "only_a", "only_b"))
        entries.append(Entry(label, tuple(f"{n:,}" for n in sums)))
    shown = entries if full else entries[:_TABLE]
    more = len(entries) - len(shown)
    rest = [line(f"and {counted(more, 'row')} more: --full lists all")] if more else []
    return [*table("tensor", columns, shown, width), *rest]
