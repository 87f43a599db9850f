"""``planc show``: print a plan, a mask plan or a latency table."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli import terminal
from planc.cli.options import EXIT_CODES, FILE, json_option


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@json_option
def show(plan_file: Path, as_json: bool) -> None:
    """Show the removals of PLAN and its savings; PLAN may be a mask plan or a latency table.

    Example: planc show half.planc
    """
    from planc.cli.report.latency import latency_json, latency_table
    from planc.cli.report.masks import masks_json, masks_table
    from planc.cli.report.plain import plan_json
    from planc.cli.report.text import plan_table
    from planc.files.formats.kinds import load_any
    from planc.plan.latency import LatencyTable
    from planc.plan.masks import MaskPlan

    loaded = load_any(plan_file)
    if isinstance(loaded, MaskPlan):
        shown = masks_json(loaded) if as_json else masks_table(loaded)
    elif isinstance(loaded, LatencyTable):
        shown = latency_json(loaded) if as_json else latency_table(loaded)
    else:
        shown = plan_json(loaded) if as_json else plan_table(loaded)
    if as_json:
        terminal.print_json(shown)
    else:
        terminal.show(shown)
