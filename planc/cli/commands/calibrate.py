"""``planc calibrate``: collect the statistics of criteria on batches."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click

from planc.cli.models import MODEL, Given, model_options, on_device
from planc.cli.options import CALIBRATED, FILE, json_option
from planc.cli.terminal import check_writable, note, print_json, status


@click.command()
@click.argument("model", type=MODEL)
@click.option(
    "--data",
    required=True,
    metavar="FACTORY",
    help="file.py:NAME or package.module:NAME: batches, or a function that returns them.",
)
@click.option(
    "--criterion",
    "criteria",
    type=click.Choice(CALIBRATED),
    multiple=True,
    required=True,
    help="A criterion that will read the statistics; repeatable.",
)
@click.option(
    "--loss",
    metavar="LOSS",
    help="cross_entropy or mse_loss of batches (inputs, targets), or the name of a function of a "
    "model and a batch, as --data; needed by criteria of gradients.",
)
@click.option("--batches", type=click.IntRange(1), help="Most batches to take; all without it.")
@click.option("--device", default="cpu", show_default=True, help="Device of MODEL and batches.")
@model_options
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", required=True, help="The file of statistics."
)
@json_option
def calibrate(
    model: str,
    given: Given,
    data: str,
    criteria: tuple[str, ...],
    loss: str | None,
    batches: int | None,
    device: str,
    output: Path,
    as_json: bool,
) -> None:
    """Collect the statistics of MODEL on your data, for planc plan --statistics.

    The model runs in eval mode on each batch of --data, in order. Without --loss, a batch is the
    input of the model: a tensor, or a tuple of arguments.
    """
    check_writable(output)
    import planc
    from planc.cli.named import find_loss, load_batches

    built = given.build(model)
    with status(f"calibrating {model} on {data}"):
        built, _ = on_device(built, (), device)
        found = load_batches(data, given.seed)
        moved = (_moved(batch, device) for batch in islice(found, batches))
        collected = planc.calibrate(built, moved, list(criteria), find_loss(loss))
    planc.save_statistics(collected, output)
    wanted = f"planc plan {model} --criterion {criteria[0]} --statistics {output}"
    if as_json:
        quantities = list(collected.quantities)
        print_json({"output": str(output), "batches": collected.batches, "quantities": quantities})
    note(f"wrote {output}: statistics of {collected.batches} batches; {wanted} reads them")


def _moved(batch: Any, device: str) -> Any:
    """Return a batch with its tensors on a device; pairs in a list become tuples."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, tuple | list):
        return tuple(_moved(item, device) for item in batch)
    if isinstance(batch, dict):
        return {key: _moved(item, device) for key, item in batch.items()}
    return batch
