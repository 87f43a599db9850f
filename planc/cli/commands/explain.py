"""``planc explain``: give the reasons of couplings, pins and constraints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from planc.cli.models import DEFAULT_INPUT, Given, input_option, model_options
from planc.cli.options import json_option
from planc.cli.terminal import print_json, say, status
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.analysis import Analysis


@click.command()
@click.argument("model")
@click.argument("tensor", required=False)
@input_option(DEFAULT_INPUT)
@model_options
@json_option
def explain(model: str, given: Given, tensor: str | None, as_json: bool) -> None:
    """List the members removed together with TENSOR, or the reasons for its pins.

    TENSOR is the full name of a parameter or buffer of MODEL; conv1.weight:0 asks about one
    dimension, conv1.weight about all. Without TENSOR, list every pin, and every constraint on
    widths in the module's code.
    """
    import planc

    args = given.example_inputs(model)
    built = given.build(model)
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
        for line in (*analysis.pins, *bounds):
            say(str(line))
    else:
        for entry in found:
            say(f"{entry['tensor']}:{entry['dim']}")
            for line in entry["reasons"]:
                say(f"  {line}")


def _explained(analysis: Analysis, tensor: str) -> list[dict[str, Any]]:
    """Return the reasons for one dimension of a tensor, or for all."""
    name, colon, text = tensor.partition(":")
    if colon and not text.isdecimal():
        raise PlancError(f"{tensor!r}: write NAME:DIMENSION, as conv1.weight:0")
    dims = [int(text or 0)]
    if not colon and analysis.graph.has(name):
        dims = list(range(len(analysis.graph.tensor(name).shape)))
    return [{"tensor": name, "dim": dim, "reasons": analysis.explain(name, dim)} for dim in dims]
