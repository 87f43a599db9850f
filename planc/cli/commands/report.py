"""``planc report``: write the page for reviewers."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import EXIT_CODES, FILE
from planc.cli.terminal import check_writable, note
from planc.errors import PlancError


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("other", required=False, type=FILE)
@click.option(
    "-o",
    "--out",
    type=FILE,
    metavar="FILE",
    help="The page to write.  [default: PLAN with the suffix .html]",
)
def report(plan_file: Path, other: Path | None, out: Path | None) -> None:
    """Write a page for reviewers: the removals of PLAN, and its differences from OTHER.

    The page is one HTML file without scripts, for any browser. Equal plans give equal pages.
    """
    import planc
    from planc.cli.report.html import plan_html
    from planc.files.disk.atomic import write_file

    out = out or plan_file.with_suffix(".html")
    check_writable(out)
    if out.exists() and any(out.samefile(given) for given in (plan_file, other) if given):
        raise PlancError(f"the page would replace the plan {out}: name another file with -o")
    against = None if other is None else planc.load_plan(other)
    page = plan_html(planc.load_plan(plan_file), against, plan_file.name)
    write_file(out, page.encode())
    note(f"wrote {out}")
