"""``planc report``: write the page for reviewers."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import EXIT_CODES, FILE
from planc.cli.terminal import check_writable, note
from planc.errors import PlancError


@click.command(epilog=EXIT_CODES)
@click.argument("plan_files", metavar="PLAN [OTHER [THIRD]]", nargs=-1, required=True, type=FILE)
@click.option(
    "-o",
    "--out",
    type=FILE,
    metavar="FILE",
    help="The page to write.  [default: PLAN with the suffix .html]",
)
def report(plan_files: tuple[Path, ...], out: Path | None) -> None:
    """Write a page for reviewers of PLAN, or of two or three plans side by side.

    The page is one HTML file for any browser. It fetches nothing; equal plans give equal pages.

    Example: planc report small.planc other.planc -o page.html
    """
    import planc

    out = out or plan_files[0].with_suffix(".html")
    check_writable(out)
    if out.exists() and any(out.samefile(given) for given in plan_files):
        raise PlancError(f"the page would replace the plan {out}: name another file with -o")
    plans = [planc.load_plan(given) for given in plan_files]
    planc.report(*plans, out=out, names=[given.name for given in plan_files])
    note(f"wrote {out}")
