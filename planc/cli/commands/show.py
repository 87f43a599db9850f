"""``planc show``: print a plan, a mask plan or a latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli import terminal
from planc.cli.options import EXIT_CODES, FILE, json_option, screen_options, table_option
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.plan.latency import LatencyTable
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--group", metavar="NAME", help="Show one group: members, removed units, scores.")
@table_option
@screen_options("List every group, attribute and constraint.")
@json_option
def show(
    plan_file: Path,
    group: str | None,
    latency_table: Path | None,
    full: bool,
    width: int | None,
    pager: bool,
    as_json: bool,
) -> None:
    """Show the removals of PLAN and its savings; PLAN may be a mask plan or a latency table.

    Example: planc show model.planc --group layer1.0.conv1
    """
    import planc
    from planc.files.formats.kinds import load_any
    from planc.plan.latency import LatencyTable
    from planc.plan.masks import MaskPlan
    from planc.plan.review.summary import timed

    loaded = load_any(plan_file)
    columns = terminal.columns(width)
    shown: Any
    if isinstance(loaded, MaskPlan | LatencyTable):
        if group is not None:
            raise PlancError(f"{plan_file}: --group {group}: only a plan has groups")
        shown = _other(loaded, as_json, columns, full)
    else:
        table = None if latency_table is None else planc.load_latency(latency_table)
        loaded = timed(loaded, table)
        shown = _plain(loaded, group) if as_json else _screen(loaded, group, columns, full)
    if as_json:
        terminal.print_json(shown)
    else:
        terminal.show(shown, columns, pager)


def _other(loaded: MaskPlan | LatencyTable, as_json: bool, columns: int, full: bool) -> Any:
    """A mask plan or a latency table, as plain data or as a table."""
    from planc.cli.report.latency import latency_json, latency_screen
    from planc.cli.report.masks import masks_json, masks_screen
    from planc.plan.masks import MaskPlan

    if isinstance(loaded, MaskPlan):
        return masks_json(loaded) if as_json else masks_screen(loaded, columns, full)
    return latency_json(loaded) if as_json else latency_screen(loaded, columns)


def _plain(plan: Plan, group: str | None) -> dict[str, Any]:
    """The plan as plain data, or the groups of a name."""
    from planc.cli.report.plain import plain_data, plan_json
    from planc.plan.review.find import groups_named

    if group is not None:
        found = groups_named(plan, group)
        return {"fingerprint": plan.fingerprint, "groups": plain_data(found)}
    return plan_json(plan)


def _screen(plan: Plan, group: str | None, columns: int, full: bool) -> Any:
    from planc.cli.report.group import group_lines
    from planc.cli.report.plan import plan_screen
    from planc.cli.report.screen import screen
    from planc.plan.review.find import groups_named

    if group is None:
        return plan_screen(plan, columns, full)
    found = groups_named(plan, group)
    return screen(part for entry in found for part in group_lines(plan, entry, columns, full))
