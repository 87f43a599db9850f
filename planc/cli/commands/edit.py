"""``planc edit``: a reviewer's decisions on a plan."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from planc.cli.choices import chosen_units, split_units
from planc.cli.models import MODEL, Given, input_option, model_options
from planc.cli.options import (
    EXIT_CODES,
    FILE,
    json_option,
    output_option,
    proportion,
    repeatable,
    table_option,
)
from planc.cli.terminal import check_writable, note, print_json, say, status


@click.command(epilog=EXIT_CODES)
@click.argument("plan", type=FILE)
@click.argument("model", type=MODEL)
@repeatable("--keep", "GROUP[:UNITS]", "Keep a group whole, or some of its units: conv1:2,6")
@repeatable("--remove", "GROUP:UNITS", "Remove units of a group: conv1:2,6,9")
@repeatable(
    "--ratio-of", "PATTERN=RATIO", "Another ratio for groups of these parts", "ratios", proportion
)
@table_option
@input_option("those of the plan")
@model_options
@output_option("The new plan file; without it, only show.")
@json_option
def edit(
    plan: Path,
    model: str,
    given: Given,
    keep: tuple[str, ...],
    remove: tuple[str, ...],
    ratios: tuple[tuple[str, float], ...],
    latency_table: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Change PLAN, made for MODEL, by a reviewer's decisions; show the new plan, and save it.

    Groups are named by any of their layers or tensors. All other groups lose the units of PLAN, as
    far as the model's constraints allow. The decisions are recorded in the new plan.

    Example: planc edit half.planc torchvision:resnet18 --keep conv1 --remove layer1.0.conv1:2,6
    """
    check_writable(output)
    import planc
    from planc.cli.report.plain import plan_json
    from planc.plan.review.summary import timed

    before = planc.load_plan(plan)
    ranks = {name: len(spec.shape) for spec in before.tensors for name in spec.names}
    whole = dict(split_units(text, ranks) for text in keep)
    built = given.build(model)
    args = given.example_inputs(model) if given.inputs else None
    with status(f"editing {plan}"):
        result = planc.edit(
            before,
            built,
            args,
            keep=whole,
            remove=chosen_units(remove, ranks),
            ratios=dict(ratios),
        )
    result = timed(result, None if latency_table is None else planc.load_latency(latency_table))
    if as_json:
        print_json(plan_json(result))
    else:
        say(result.summary())
        for decision in result.provenance[-1].decisions:
            say(f"decision: {decision}")
    if output is None:
        note("nothing is written: -o FILE saves the plan")
        return
    planc.save_plan(result, output)
    shown = shlex.join(["planc", "diff", str(plan), str(output)])
    note(f"wrote {output}\nnext: {shown}")
