"""Mask plans and their differences as terminal tables and as plain data."""

from __future__ import annotations

import math
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planc.cli.report.plain import plain_data
from planc.cli.report.text import escape, facts, provenance_text, share_text, spaced, titled
from planc.errors.text import escaped
from planc.plan.maskdiff import MaskPlanDiff
from planc.plan.masks import MaskPlan


def masks_table(masks: MaskPlan) -> RenderableType:
    """Return the table of ``planc show``: the origin of a mask plan, and each tensor's losses."""
    header = facts()
    header.add_row("fingerprint", masks.fingerprint[:16])
    for entry in masks.provenance:
        header.add_row("made by", escape(provenance_text(entry)))
    left = share_text(masks.size - masks.removed, masks.size)
    header.add_row("removed", f"{masks.removed:,} of {masks.size:,} elements, {left} left")
    if masks.requires:
        header.add_row("requires", escape(", ".join(masks.requires)))
    title = f"tensors: {len(masks.masks)} of {len(masks.tensors)} lose elements"
    table = titled(title, "tensor", "shape>", "elements>", "removed>", "left>")
    for mask in masks.masks:
        shape = masks.specs[mask.tensor].shape
        size = math.prod(shape)
        table.add_row(
            escape(mask.tensor),
            escape(str(list(shape))),
            f"{size:,}",
            f"{mask.count:,}",
            share_text(size - mask.count, size),
        )
    return spaced([header, table])


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


def masks_diff_table(diff: MaskPlanDiff, names: tuple[str, str] = ("a", "b")) -> RenderableType:
    """Return the table of ``planc diff`` for two mask plans, with their differences only."""
    if not diff:
        return Text(escaped(f"{names[0]} and {names[1]} are equal"))
    header = facts()
    for side, name in zip("ab", names, strict=True):
        header.add_row(side, escape(name))
    if diff.source is not None:
        header.add_row("made for", escape(f"different tensors: {diff.source}"))
    for side, entries in zip("ab", diff.provenance or ((), ()), strict=True):
        for entry in entries:
            header.add_row(f"{side} made by", escape(provenance_text(entry)))
    header.add_row("removed", f"{diff.removed[0]:,} elements in a, {diff.removed[1]:,} in b")
    if diff.others:
        header.add_row("also differ", escape(", ".join(diff.others)))
    parts: list[RenderableType] = [header]
    if diff.tensors:
        table = titled("tensors", "tensor", "removed in both>", "only in a>", "only in b>")
        for tensor in diff.tensors:
            counts = (f"{n:,}" for n in (tensor.both, tensor.only_a, tensor.only_b))
            table.add_row(escape(tensor.name), *counts)
        parts.append(table)
    return spaced(parts)
