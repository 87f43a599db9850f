"""``planc verify``: prove a plan on its model."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path

import click

from planc.cli.models import MODEL, Given, input_option, model_options
from planc.cli.options import FILE, json_option
from planc.cli.terminal import print_json, say, status
from planc.errors import PlancWarning


@click.command()
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("model", type=MODEL)
@click.option(
    "--result", type=FILE, metavar="FILE", help="Smaller weights to check, from planc apply."
)
@input_option("those the plan was made with")
@model_options
@json_option
def verify(plan_file: Path, model: str, given: Given, result: Path | None, as_json: bool) -> None:
    """Prove PLAN on MODEL: apply it, run both models, compare with the masked original.

    A check mark stands before what was shown, a dash before what was not, with the reason.

    Example: planc verify half.planc torchvision:resnet18
    """
    import planc
    from planc.cli.weights import assign_stored

    loaded = planc.load_plan(plan_file)
    args = given.example_inputs(model) if given.inputs else None  # None: those of the plan
    built = given.build(model)
    with status(f"verifying {plan_file}"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlancWarning)  # verify warns as well
            smaller = planc.apply(loaded, built)
        if result is not None:
            assign_stored(smaller, result, given.trust_pickle)
        report = planc.verify(loaded, built, smaller, args)
    if as_json:
        print_json(asdict(report))
        return
    say(str(report))
    if report.error is not None:
        say(f"largest relative error against the masked original: {report.error:.2g}")
