"""``planc recover``: the plan behind weights that are pruned already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planc.cli.ending import finish
from planc.cli.models import DEFAULT_INPUT, MODEL, Given, input_option, model_options
from planc.cli.options import (
    FILE,
    json_option,
    output_option,
    share,
    strict_option,
    target_option,
)
from planc.cli.origin import named_origin
from planc.cli.terminal import check_writable, say, status


@click.command()
@click.argument("model", type=MODEL)
@click.argument("pruned", type=FILE)
@click.option(
    "--least",
    callback=share(),
    metavar="SHARE",
    help="Refuse a group of a lower confidence, between 0 and 1.",
)
@target_option
@strict_option
@input_option(DEFAULT_INPUT)
@model_options
@output_option("The plan file; without it, only the summary.")
@json_option
def recover(
    model: str,
    pruned: Path,
    given: Given,
    least: float | None,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the plan from MODEL to the weights in PRUNED, which another tool pruned.

    The tensors of both are matched, also after fine-tuning; each group that is not sure is listed
    with its confidence. --weights names the weights of MODEL before pruning.

    Example: planc recover net.py:build small.safetensors --weights net.safetensors -o net.planc
    """
    check_writable(output)
    import planc

    args = given.example_inputs(model)
    built = given.build(model)
    stored = planc.StoredWeights(pruned, model=built, trust_pickle=given.trust_pickle)
    with status(f"matching the tensors of {pruned}"):
        try:
            found = planc.recover(built, stored, args, least=least or 0.0, **options)
        except planc.PolicyError as error:
            raise planc.PolicyError(f"{pruned}: {error}") from None
    say(str(found), err=as_json)
    plan = named_origin(found.plan, given, model)
    finish(plan, output, given.words(model), told=True, as_json=as_json)
