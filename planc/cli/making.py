"""The commands that make files from a MODEL: plans, mask plans and latency tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli.models import Settings, Shapes, build, example_inputs, on_device
from planc.cli.options import (
    CRITERIA,
    EXIT_CODES,
    FILE,
    IMAGE,
    budget_options,
    input_option,
    model_options,
    n_of_m,
    name_options,
    output_option,
    ratio_option,
    repeatable,
)
from planc.cli.terminal import check_writable, note, status
from planc.cli.terminal import show as print_table
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.plan.plan import Plan


_HOW_FAR = ("ratio", "macs", "params", "bytes", "latency")


@click.command(epilog=EXIT_CODES)
@click.argument("model", required=False)
@ratio_option("Share of the units to remove; a half where no budget is given.")
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
@name_options("groups")
@repeatable(
    "--kind", "KIND=RATIO", "Another ratio for groups of a kind, as heads=0.5", "kinds", float
)
@repeatable("--rows", "KIND", "Whole rows that go by the common ratio or budget, as heads")
@repeatable(
    "--ratio-of",
    "PATTERN=RATIO",
    "Another ratio for groups of this name, as layer1.*=0.2",
    "ratios",
    float,
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
    "--from-masks",
    type=FILE,
    metavar="FILE",
    help="Instead of scoring, remove the units that a mask plan covers, if none is missed.",
)
@output_option("The plan file; without it, only show.")
def plan(
    model: str | None,
    settings: Settings,
    inputs: Shapes,
    seed: int,
    weights: Path | None,
    kinds: tuple[tuple[str, float], ...],
    ratios: tuple[tuple[str, float], ...],
    meta: bool,
    collected: Path | None,
    from_json: Path | None,
    from_masks: Path | None,
    output: Path | None,
    latency_table: Path | None,
    **options: Any,
) -> None:
    """Compile a plan for MODEL, show it, and save it."""
    if (model is None) == (from_json is None):
        raise click.UsageError("name a MODEL, or a file with --from-json")
    if meta and weights is None:
        raise click.UsageError("--meta reads the weights of MODEL from --weights: name them")
    asked = [name for name in _HOW_FAR if options[name] is not None]
    if from_masks is not None and asked:
        raise click.UsageError(f"--{asked[0]} and --from-masks: the masks say what goes")
    check_writable(output)
    import planc
    from planc.cli.report.text import plan_table

    if from_json is not None:
        result = _plan_in(from_json)
    else:
        assert model is not None
        args = example_inputs(inputs, seed)
        stored = planc.StoredWeights(weights) if meta and weights is not None else None
        device = "meta" if meta else "cpu"
        built = build(model, settings, seed, None if meta else weights, device)
        measured = None if latency_table is None else planc.load_latency(latency_table)
        with status(f"compiling a plan for {model}"):
            if from_masks is not None:
                masks = planc.load_masks(from_masks)
                chosen = {name: options[name] for name in ("target", "strict")}
                found = planc.from_masks(built, args, masks=masks, **chosen)
                result = found.plan
            else:
                result = planc.compile(
                    built,
                    args,
                    kinds=dict(kinds),
                    ratios=dict(ratios),
                    seed=seed,
                    weights=stored,
                    statistics=None if collected is None else planc.load_statistics(collected),
                    latency_table=measured,
                    **options,
                )
        if from_masks is not None:
            note(str(found))
    print_table(plan_table(result))
    if output is not None:
        planc.save_plan(result, output)
        note(f"wrote {output}")


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@ratio_option("Share of the elements to remove; a half where no pattern is given.")
@click.option(
    "--n-of-m",
    callback=n_of_m,
    metavar="N:M",
    help="Of every M elements in a row N stay, as 2:4, instead of a ratio.",
)
@click.option(
    "--along", type=int, default=1, show_default=True, help="The dimension of rows for --n-of-m."
)
@click.option("--global", "all_together", is_flag=True, help="Elements of all tensors compete.")
@click.option(
    "--largest",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Largest share of its elements that a tensor loses, with --global.",
)
@click.option(
    "--criterion",
    type=click.Choice(["magnitude", "random"]),
    default="magnitude",
    show_default=True,
    help="What makes an element important.",
)
@name_options("parameters")
@model_options
@output_option("The mask plan's file; without it, only show.")
def mask(
    model: str,
    settings: Settings,
    seed: int,
    weights: Path | None,
    ratio: float | None,
    n_of_m: tuple[int, int] | None,
    along: int,
    all_together: bool,
    largest: float,
    criterion: str,
    keep: tuple[str, ...],
    only: tuple[str, ...],
    output: Path | None,
) -> None:
    """Make a mask plan for MODEL, which removes single elements; show it, and save it.

    planc apply makes the elements zero, planc show, diff and restore take mask plans, too.
    """
    if n_of_m is not None and (ratio is not None or all_together):
        raise click.UsageError("--n-of-m says how many elements go: leave --ratio, --global out")
    if largest < 1 and not all_together:
        raise click.UsageError("--largest is for elements of all tensors: give --global, too")
    check_writable(output)
    import planc
    from planc import masks
    from planc.cli.report.masks import masks_table

    share = 0.5 if ratio is None else ratio
    policy: masks.MaskPolicy = masks.PerTensor(share)
    if n_of_m is not None:
        policy = masks.NofM(*n_of_m, along)
    elif all_together:
        policy = masks.GlobalElements(share, largest)
    scorer = masks.RandomElements(seed) if criterion == "random" else masks.ElementMagnitude()
    built = build(model, settings, seed, weights)
    with status(f"choosing elements of {model}"):
        result = masks.select(built, policy, scorer, only=only, keep=keep, seed=seed)
    print_table(masks_table(result))
    if output is not None:
        planc.save_masks(result, output)
        note(f"wrote {output}")


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@input_option(IMAGE)
@model_options
@click.option(
    "--device", default="cpu", show_default=True, help="Where MODEL is to run, as cpu or cuda:0."
)
@click.option("--threads", type=click.IntRange(1), help="Threads that MODEL will have.")
@output_option("The latency table's file; without it, only show.")
def measure(
    model: str,
    settings: Settings,
    inputs: Shapes,
    seed: int,
    weights: Path | None,
    device: str,
    threads: int | None,
    output: Path | None,
) -> None:
    """Measure what the operators of MODEL take on this machine, for planc plan --latency.

    Each is run by itself in several widths, which takes a minute or so. The machine should have
    nothing else to do.
    """
    check_writable(output)
    import planc
    from planc.cli.report.latency import latency_table

    args = example_inputs(inputs, seed)
    built = build(model, settings, seed, weights)
    with status(f"measuring {model}"):
        analysis = planc.analyze(planc.trace(built, args))
        built, args = on_device(built, args, device)
        result = planc.measure_latency(analysis, lambda: built(*args), device, threads=threads)
    print_table(latency_table(result))
    if output is not None:
        planc.save_latency(result, output)
        note(f"wrote {output}")


def _plan_in(path: Path) -> Plan:
    """The plan that a JSON text describes."""
    from planc.cli.report.plain import plan_from_json
    from planc.files.disk.atomic import read_file
    from planc.files.disk.limits import DEFAULT

    try:
        plain = json.loads(read_file(path, DEFAULT.file))
    except (ValueError, RecursionError) as error:
        raise PlancError(f"{path}: not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise PlancError(f"{path}: not a JSON object; name what planc show --json printed")
    return plan_from_json(plain)
