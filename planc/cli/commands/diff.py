"""``planc diff``: compare two plans."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import EXIT_CODES, FILE, json_option
from planc.cli.terminal import print_json, show
from planc.errors import PlancError

_DIFFER = 3


@click.command(epilog=EXIT_CODES)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@json_option
def diff(first: Path, second: Path, as_json: bool) -> int:
    """Compare two plans, or two mask plans; exit with 3 if they differ.

    Example: planc diff half.planc other.planc
    """
    import planc
    from planc.cli.report.masks import masks_diff_table
    from planc.cli.report.text import diff_table
    from planc.files.formats.kinds import load_any
    from planc.plan.latency import LatencyTable
    from planc.plan.maskdiff import MaskPlanDiff

    left, right = load_any(first), load_any(second)
    if isinstance(left, LatencyTable) or isinstance(right, LatencyTable):
        raise PlancError("diff compares plans, a latency table is none: name two plans")
    differences = planc.diff(left, right)
    if as_json:
        print_json(differences.to_json())
    elif isinstance(differences, MaskPlanDiff):
        show(masks_diff_table(differences))
    else:
        show(diff_table(differences))
    return _DIFFER if differences else 0
