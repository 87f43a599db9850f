"""The parts and words that tables share."""

from __future__ import annotations

from collections.abc import Sequence

from planc.plan.diff import AttributeDiff
from planc.plan.plan import AttributeChange
from planc.plan.review.summary import origin_text

COSTS = (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes"))
"""The fields of a cost, and their names for people."""


def attribute_name(entry: AttributeChange | AttributeDiff) -> str:
    """Return the full name of an attribute."""
    return f"{entry.module}.{entry.name}" if entry.module else entry.name


provenance_text = origin_text


def share_text(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else "-"


def units_text(units: Sequence[int]) -> str:
    """Format units as ranges: ``0-3, 7 (5)``."""
    ranges: list[tuple[int, int]] = []
    for unit in units:
        if ranges and ranges[-1][1] == unit - 1:
            ranges[-1] = (ranges[-1][0], unit)
        else:
            ranges.append((unit, unit))
    if not ranges:
        return "-"
    shown = [f"{a}-{b}" if b > a else str(a) for a, b in ranges[:8]]
    return ", ".join(shown) + (", ..." if len(ranges) > 8 else "") + f" ({len(units)})"
