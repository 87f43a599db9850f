"""``planc report``: write the page for reviewers."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planc.cli.models import MODEL, Given, model_options
from planc.cli.options import FILE, json_option
from planc.cli.terminal import check_writable, note, print_json, status
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.analysis import Analysis
    from planc.plan.plan import Plan


@click.command()
@click.argument("plan_files", metavar="PLAN [OTHER [THIRD]]", nargs=-1, required=True, type=FILE)
@click.option(
    "-o",
    "--out",
    type=FILE,
    metavar="FILE",
    help="The page to write.  [default: PLAN with the suffix .html]",
)
@click.option(
    "--model",
    type=MODEL,
    metavar="MODEL",
    help="The model of the plans, to show MACs by module; a plan holds their total.",
)
@model_options
@json_option
def report(
    plan_files: tuple[Path, ...],
    out: Path | None,
    model: str | None,
    given: Given,
    as_json: bool,
) -> None:
    """Write a page for reviewers of PLAN, or of two or three plans side by side.

    The page is one HTML file for any browser. It fetches nothing; equal plans give equal pages.
    """
    from planc.cli.report.html import plans_html
    from planc.files.disk.atomic import read_file, write_file
    from planc.files.disk.limits import DEFAULT
    from planc.files.formats import PLANS, decode_plan
    from planc.files.formats.nature import check_nature

    out = out or plan_files[0].with_suffix(".html")
    check_writable(out)
    if out.exists() and any(out.samefile(path) for path in plan_files):
        raise PlancError(f"the page would replace the plan {out}: name another file with -o")
    for path in plan_files:
        check_nature(path, PLANS.kind)
    contents = [read_file(path, DEFAULT.file) for path in plan_files]
    pairs = zip(contents, plan_files, strict=True)
    plans = [decode_plan(content, name=str(path)) for content, path in pairs]
    page = plans_html(
        plans,
        [path.name for path in plan_files],
        [sha256(content).hexdigest() for content in contents],
        None if model is None else _analysis(plans[0], model, given),
    )
    write_file(out, page.encode())
    if as_json:
        print_json({"output": str(out), "plans": [str(path) for path in plan_files]})
    note(f"wrote {out}")


def _analysis(plan: Plan, model: str, given: Given) -> Analysis:
    """The analysis of a model on the inputs of a plan."""
    import planc
    from planc.analysis.outputs import freed
    from planc.modules.inputs import materialise

    built = given.build(model)
    with status(f"analysing {model}"):
        args, kwargs = materialise(plan.inputs)
        return planc.analyze(freed(planc.trace(built, args, kwargs), plan))
