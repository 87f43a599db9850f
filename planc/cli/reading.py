"""The commands that read plans and models: between reading and printing, one call of the library
each.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli.models import Settings, Shapes, build, example_inputs
from planc.cli.options import EXIT_CODES, FILE, IMAGE, input_option, json_option, model_options
from planc.cli.terminal import check_writable, note, print_json, say, status
from planc.cli.terminal import show as print_table
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.analysis import Analysis

_DIFFER = 3


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@json_option
def show(plan_file: Path, as_json: bool) -> None:
    """Show what PLAN removes, and what that saves; PLAN may be a mask plan or a latency table."""
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
        print_json(shown)
    else:
        print_table(shown)


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@click.argument("tensor", required=False)
@input_option(IMAGE)
@model_options
@json_option
def explain(
    model: str,
    tensor: str | None,
    settings: Settings,
    inputs: Shapes,
    seed: int,
    weights: Path | None,
    as_json: bool,
) -> None:
    """Say what leaves together with TENSOR, or why it is pinned.

    TENSOR is the full name of a parameter or buffer of MODEL; conv1.weight:0 asks about one
    dimension, conv1.weight about all. Without TENSOR, everything that is pinned is listed, and
    every constraint on widths that the module's code has.
    """
    import planc

    args = example_inputs(inputs, seed)
    built = build(model, settings, seed, weights)
    with status(f"analysing {model}"):
        analysis = planc.analyze(planc.trace(built, args))
        if tensor is None:
            found = [asdict(pin) for pin in analysis.pins]
            bounds = [*map(str, analysis.bounds("module"))]
        else:
            found = _explained(analysis, tensor)
    if as_json:
        print_json(found)
    elif tensor is None:
        for pin in analysis.pins:
            say(str(pin))
        for bound in bounds:
            say(bound)
    else:
        for entry in found:
            say(f"{entry['tensor']}:{entry['dim']}")
            for line in entry["reasons"]:
                say(f"  {line}")


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("model")
@click.option(
    "--result", type=FILE, metavar="FILE", help="Smaller weights to check, from planc apply."
)
@input_option("those the plan was made with")
@model_options
def verify(
    plan_file: Path,
    model: str,
    settings: Settings,
    inputs: Shapes,
    seed: int,
    weights: Path | None,
    result: Path | None,
) -> None:
    """Prove PLAN on MODEL: apply it, run both models, compare with the masked original."""
    import planc
    from planc.cli.named import assign_weights, read_weights

    loaded = planc.load_plan(plan_file)
    args = example_inputs(inputs, seed) if inputs else None  # None: those of the plan
    built = build(model, settings, seed, weights)
    with status(f"verifying {plan_file}"):
        smaller = planc.apply(loaded, built)
        if result is not None:
            assign_weights(smaller, read_weights(result), str(result))
        report = planc.verify(loaded, built, smaller, args)
    for check in report.checks:
        say(f"ok: {check}")
    if report.error is not None:
        say(f"largest relative error against the masked original: {report.error:.2g}")


@click.command(epilog=EXIT_CODES)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@json_option
def diff(first: Path, second: Path, as_json: bool) -> int:
    """Compare two plans, or two mask plans; exit with 3 if they differ."""
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
        print_table(masks_diff_table(differences))
    else:
        print_table(diff_table(differences))
    return _DIFFER if differences else 0


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
    """Write a page for reviewers: what PLAN removes, and how it differs from OTHER.

    One HTML file without scripts; any browser opens it. Equal plans give equal pages.
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


def _explained(analysis: Analysis, tensor: str) -> list[dict[str, Any]]:
    """The reasons for one dimension of a tensor, or for all."""
    name, colon, text = tensor.partition(":")
    if colon and not text.isdecimal():
        raise PlancError(f"{tensor!r}: write NAME:DIMENSION, as conv1.weight:0")
    dims = [int(text or 0)]
    if not colon and analysis.graph.has(name):
        dims = list(range(len(analysis.graph.tensor(name).shape)))
    return [{"tensor": name, "dim": dim, "reasons": analysis.explain(name, dim)} for dim in dims]
