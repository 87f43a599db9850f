"""``planc measure``: time the operators of a model."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from planc.cli.models import DEFAULT_INPUT, MODEL, Given, input_option, model_options, on_device
from planc.cli.options import json_option, output_option
from planc.cli.terminal import check_writable, columns, note, print_json, show, status


@click.command()
@click.argument("model", type=MODEL)
@input_option(DEFAULT_INPUT)
@model_options
@click.option(
    "--device", default="cpu", show_default=True, help="Device of MODEL, such as cpu or cuda:0."
)
@click.option("--threads", type=click.IntRange(1), help="Threads that MODEL will have.")
@output_option("The latency table's file; without it, only show.")
@json_option
def measure(
    model: str,
    given: Given,
    device: str,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure the time of MODEL's operators on this machine, for planc plan --latency.

    Each operator runs by itself in several widths, which takes about a minute. The machine should
    be idle otherwise.

    Example: planc measure torchvision:resnet18 --threads 1 -o resnet18.latency
    """
    check_writable(output)
    import planc
    from planc.cli.report.latency import latency_json, latency_screen

    args = given.example_inputs(model)
    built = given.build(model)
    with status(f"measuring {model}"):
        analysis = planc.analyze(planc.trace(built, args))
        built, args = on_device(built, args, device)
        result = planc.measure_latency(analysis, lambda: built(*args), device, threads=threads)
    if as_json:
        print_json(latency_json(result))
    else:
        show(latency_screen(result, columns()))
    if output is not None:
        planc.save_latency(result, output)
        note(f"wrote {output}")
        if words := given.words(model, inputs=True):
            follow = ["planc", "plan", *words, "--latency-table", str(output), "--latency", "70%"]
            note(f"next: {shlex.join(follow)}")
