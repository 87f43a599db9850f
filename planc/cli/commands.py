"""The commands, each one call of the library between reading and printing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli.models import build
from planc.cli.options import (
    CRITERIA,
    EXIT_CODES,
    FILE,
    IMAGE,
    budget_options,
    input_option,
    json_option,
    model_options,
    pairs,
    shape,
)
from planc.cli.terminal import check_writable, note, print_json, status
from planc.cli.terminal import show as print_table
from planc.errors import PlancError

if TYPE_CHECKING:
    import torch

    from planc.analysis import Analysis
    from planc.plan import Plan

_DIFFER = 3
_Settings = tuple[tuple[str, Any], ...]
_Shapes = tuple[tuple[str, tuple[int, ...], str], ...]


@click.command(epilog=EXIT_CODES)
@click.argument("model", required=False)
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the units to remove; a half where no budget is given.",
)
@budget_options
@click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    default="l2",
    show_default=True,
    help="What makes a unit important.",
)
@click.option(
    "--statistics",
    "collected",
    type=FILE,
    metavar="FILE",
    help="What planc.calibrate collected, for criteria from taylor on.",
)
@click.option(
    "--ranking",
    type=click.Choice(["uniform", "global", "isomorphic", "per_cost"]),
    default="uniform",
    show_default=True,
    help="Units compete in each group, among all, among groups alike, or by score per cost.",
)
@click.option("--global", "global_ranking", is_flag=True, help="The same as --ranking global.")
@click.option(
    "--round-to",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Keep multiples of this many units.",
)
@click.option(
    "--floor",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Units that a group keeps at least.",
)
@click.option(
    "--cap",
    type=click.FloatRange(0, 1, max_open=True),
    help="Largest share of its units that a group loses.",
)
@click.option("--equal", is_flag=True, help="Groups alike keep equally many units.")
@click.option(
    "--keep", multiple=True, metavar="PATTERN", help="Leave groups of this name whole; repeatable."
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Prune groups of this name only; repeatable."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    callback=pairs(float),
    metavar="KIND=RATIO",
    help="Another ratio for groups of a kind, as heads=0.5; repeatable.",
)
@click.option(
    "--rows",
    multiple=True,
    metavar="KIND",
    help="Whole rows that go by the common ratio or budget, as heads; repeatable.",
)
@click.option(
    "--ratio-of",
    "ratios",
    multiple=True,
    callback=pairs(float),
    metavar="PATTERN=RATIO",
    help="Another ratio for groups of this name, as layer1.*=0.2; repeatable.",
)
@click.option(
    "--target",
    type=click.Choice(["module", "graph"]),
    default="module",
    show_default=True,
    help="Keep the model's class, or allow what only its rewritten graph can do.",
)
@click.option("--strict", is_flag=True, help="Fail on an operator without a rule.")
@input_option(IMAGE)
@model_options
@click.option(
    "--meta",
    is_flag=True,
    help="Build MODEL without memory for its tensors; score those of --weights one by one.",
)
@click.option(
    "--from-json",
    type=FILE,
    metavar="FILE",
    help="Instead of compiling a plan for MODEL, read what planc show --json printed.",
)
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", help="The plan file; without it, only show."
)
def plan(
    model: str | None,
    settings: _Settings,
    inputs: _Shapes,
    seed: int,
    weights: Path | None,
    kinds: tuple[tuple[str, float], ...],
    ratios: tuple[tuple[str, float], ...],
    meta: bool,
    collected: Path | None,
    from_json: Path | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Compile a plan for MODEL, show it, and save it."""
    if (model is None) == (from_json is None):
        raise click.UsageError("name a MODEL, or a file with --from-json")
    if meta and weights is None:
        raise click.UsageError("--meta reads the weights of MODEL from --weights: name them")
    check_writable(output)
    import planc
    from planc.report.text import plan_table

    if from_json is not None:
        result = _plan_in(from_json)
    else:
        assert model is not None
        args = _example_inputs(inputs, seed)
        stored = planc.StoredWeights(weights) if meta and weights is not None else None
        device = "meta" if meta else "cpu"
        built = build(model, settings, seed, None if meta else weights, device)
        with status(f"compiling a plan for {model}"):
            result = planc.compile(
                built,
                args,
                kinds=dict(kinds),
                ratios=dict(ratios),
                seed=seed,
                weights=stored,
                statistics=None if collected is None else planc.load_statistics(collected),
                **options,
            )
    print_table(plan_table(result))
    if output is not None:
        planc.save_plan(result, output)
        note(f"wrote {output}")


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@json_option
def show(plan_file: Path, as_json: bool) -> None:
    """Show what PLAN removes, and what that saves; PLAN may be a mask plan."""
    from planc.codec.kinds import load_any
    from planc.maskplan import MaskPlan
    from planc.report.masks import masks_json, masks_table
    from planc.report.plain import plan_json
    from planc.report.text import plan_table

    loaded = load_any(plan_file)
    if isinstance(loaded, MaskPlan):
        if as_json:
            print_json(masks_json(loaded))
        else:
            print_table(masks_table(loaded))
    elif as_json:
        print_json(plan_json(loaded))
    else:
        print_table(plan_table(loaded))


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@click.argument("tensor", required=False)
@input_option(IMAGE)
@model_options
@json_option
def explain(
    model: str,
    tensor: str | None,
    settings: _Settings,
    inputs: _Shapes,
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

    args = _example_inputs(inputs, seed)
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
            click.echo(str(pin))
        for bound in bounds:
            click.echo(bound)
    else:
        for entry in found:
            click.echo(f"{entry['tensor']}:{entry['dim']}")
            for line in entry["reasons"]:
                click.echo(f"  {line}")


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
    settings: _Settings,
    inputs: _Shapes,
    seed: int,
    weights: Path | None,
    result: Path | None,
) -> None:
    """Prove PLAN on MODEL: apply it, run both models, compare with the masked original."""
    import planc
    from planc.models import assign_weights, read_weights

    loaded = planc.load_plan(plan_file)
    args = _example_inputs(inputs, seed) if inputs else None  # None: those of the plan
    built = build(model, settings, seed, weights)
    with status(f"verifying {plan_file}"):
        smaller = planc.apply(loaded, built)
        if result is not None:
            assign_weights(smaller, read_weights(result), str(result))
        report = planc.verify(loaded, built, smaller, args)
    for check in report.checks:
        click.echo(f"ok: {check}")
    if report.error is None:
        click.echo("not compared with the masked original: a pruned group is mixing")
    else:
        click.echo(f"largest relative error against the masked original: {report.error:.2g}")


@click.command(epilog=EXIT_CODES)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@json_option
def diff(first: Path, second: Path, as_json: bool) -> int:
    """Compare two plans, or two mask plans; exit with 3 if they differ."""
    import planc
    from planc.codec.kinds import load_any
    from planc.maskdiff import MaskPlanDiff
    from planc.report.masks import masks_diff_table
    from planc.report.text import diff_table

    differences = planc.diff(load_any(first), load_any(second))
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
    from planc.codec.files import write_file
    from planc.report.html import plan_html

    out = out or plan_file.with_suffix(".html")
    check_writable(out)
    if out.exists() and any(out.samefile(given) for given in (plan_file, other) if given):
        raise PlancError(f"the page would replace the plan {out}: name another file with -o")
    against = None if other is None else planc.load_plan(other)
    page = plan_html(planc.load_plan(plan_file), against, plan_file.name)
    write_file(out, page.encode())
    note(f"wrote {out}")


def _plan_in(path: Path) -> Plan:
    """The plan that a JSON text describes."""
    from planc.codec.files import read_file
    from planc.codec.limits import DEFAULT
    from planc.report.plain import plan_from_json

    try:
        plain = json.loads(read_file(path, DEFAULT.file))
    except (ValueError, RecursionError) as error:
        raise PlancError(f"{path}: not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise PlancError(f"{path}: not a JSON object; name what planc show --json printed")
    return plan_from_json(plain)


def _example_inputs(inputs: _Shapes, seed: int) -> tuple[torch.Tensor, ...]:
    from planc.inputs import materialise

    items = inputs or (shape(IMAGE),)
    args, _ = materialise(("tuple", ("tuple", *items), ("dict",)), seed=seed)
    return args


def _explained(analysis: Analysis, tensor: str) -> list[dict[str, Any]]:
    """The reasons for one dimension of a tensor, or for all."""
    name, colon, text = tensor.partition(":")
    if colon and not text.isdecimal():
        raise PlancError(f"{tensor!r}: write NAME:DIMENSION, as conv1.weight:0")
    dims = [int(text or 0)]
    if not colon and analysis.graph.has(name):
        dims = list(range(len(analysis.graph.tensor(name).shape)))
    return [{"tensor": name, "dim": dim, "reasons": analysis.explain(name, dim)} for dim in dims]
