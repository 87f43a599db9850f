"""``planc diff``: compare two plans."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from planc.cli import terminal
from planc.cli.options import FILE, json_option, screen_options, table_option
from planc.errors import PlancError

_DIFFER, _ERROR = 1, 2
_GIT = (7, 9)  # arguments of git to the command of a diff driver
_EPILOG = """\b
Exit codes, those of diff:
  0    the plans are equal, or git called
  1    they differ
  2    an error: the message on standard error says what and where
"""


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of the output."""

    columns: int
    full: bool
    stat: bool
    as_json: bool
    latency_table: Path | None


@click.command(epilog=_EPILOG)
@click.argument("plans", metavar="A B", nargs=-1, type=FILE)
@click.option("--stat", is_flag=True, help="Sums and stages, in at most ten lines.")
@table_option
@screen_options("List every group with the units of only one plan, and every attribute.")
@json_option
def diff(
    plans: tuple[Path, ...],
    stat: bool,
    latency_table: Path | None,
    full: bool,
    width: int | None,
    pager: bool,
    as_json: bool,
) -> int:
    """Compare two plans, or two mask plans: what they were made from, widths, units.

    With the seven arguments that git gives to a diff driver, show one changed file and exit with 0:
    git config diff.planc.command "planc diff", and *.planc diff=planc in .gitattributes.

    Example: planc diff before.planc after.planc --stat
    """
    git = len(plans) in _GIT
    if len(plans) != 2 and not git:
        raise click.UsageError(f"name two plans to compare, not {len(plans)}")
    files = (plans[1], plans[4]) if git else plans
    names = _of_git(plans) if git else (str(files[0]), str(files[1]))
    form = _Form(terminal.columns(width), full, stat, as_json, latency_table)
    try:
        shown, differ = _compared(files, names, form)
    except (PlancError, OSError) as error:
        terminal.note(terminal.problem(error))
        return _ERROR
    if as_json:
        terminal.print_json(shown)
    else:
        terminal.show(shown, form.columns, pager and not git, _in_gits_pager(git))
    return _DIFFER if differ and not git else 0


def _in_gits_pager(git: bool) -> bool:
    """True if git asked for the difference and shows it in its pager, in color."""
    return git and os.environ.get("GIT_PAGER_IN_USE", "") in ("1", "true")


def _compared(files: tuple[Path, ...], names: tuple[str, str], form: _Form) -> tuple[Any, bool]:
    """The difference as plain data or as a renderable, and True if there is one."""
    import planc
    from planc.cli.report.difference import Pair, diff_screen
    from planc.cli.report.masks import masks_diff_screen
    from planc.plan.maskdiff import MaskPlanDiff
    from planc.plan.plan import Plan
    from planc.plan.review.summary import timed

    absent = [name for file, name in zip(files, names, strict=True) if str(file) == os.devnull]
    if absent:  # git's name for a file that one side does not have
        return _alone(next(file for file in files if str(file) != os.devnull), absent[0]), True
    left, right = map(_plan, files)
    if form.latency_table is not None and isinstance(left, Plan) and isinstance(right, Plan):
        table = planc.load_latency(form.latency_table)
        left, right = timed(left, table), timed(right, table)
    found = planc.diff(left, right)
    if form.as_json:
        return {"a": names[0], "b": names[1], **found.to_json()}, bool(found)
    if isinstance(found, MaskPlanDiff):
        return masks_diff_screen(found, names, form.columns, form.full), bool(found)
    pair = Pair(left, right, names, found)
    return diff_screen(pair, form.columns, form.full, form.stat), bool(found)


def _plan(file: Path) -> Any:
    from planc.files.formats.kinds import load_any
    from planc.plan.latency import LatencyTable

    loaded = load_any(file)
    if isinstance(loaded, LatencyTable):
        raise PlancError(f"{file}: diff compares plans, a latency table is none: name two plans")
    return loaded


def _alone(file: Path, absent: str) -> Any:
    """The sum of a plan without another to compare it with."""
    from rich.text import Text

    from planc.plan.masks import MaskPlan
    from planc.plan.review.summary import totals

    loaded = _plan(file)
    text = f"{loaded.removed:,} elements" if isinstance(loaded, MaskPlan) else totals(loaded)
    return Text(f"no {absent}; the other: {text}")


def _of_git(arguments: tuple[Path, ...]) -> tuple[str, str]:
    """The names of the old and the new file, which git passes as temporary ones."""
    return f"a/{arguments[0]}", f"b/{arguments[7] if len(arguments) > 7 else arguments[0]}"
