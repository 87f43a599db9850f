"""``planc report``: write the page for reviewers."""

from __future__ import annotations

from hashlib import sha256
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
    from planc.cli.report.html import plans_html
    from planc.files.disk.atomic import read_file, write_file
    from planc.files.disk.limits import DEFAULT
    from planc.files.formats import decode_plan

    out = out or plan_files[0].with_suffix(".html")
    check_writable(out)
    if out.exists() and any(out.samefile(given) for given in plan_files):
        raise PlancError(f"the page would replace the plan {out}: name another file with -o")
    contents = [read_file(given, DEFAULT.file) for given in plan_files]
    pairs = zip(contents, plan_files, strict=True)
    page = plans_html(
        [decode_plan(content, name=str(given)) for content, given in pairs],
        [given.name for given in plan_files],
        [sha256(content).hexdigest() for content in contents],
    )
    write_file(out, page.encode())
    note(f"wrote {out}")
