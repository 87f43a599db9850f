"""``planc mask``: make a plan of single elements."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from planc.cli.models import MODEL, Given, model_options
from planc.cli.options import (
    FILE,
    json_option,
    n_of_m,
    name_options,
    output_option,
    ratio_option,
    share,
)
from planc.cli.origin import named_origin
from planc.cli.terminal import check_writable, columns, note, print_json, show, status


@click.command()
@click.argument("model", type=MODEL)
@ratio_option("Share of the elements to remove; a half where no pattern is given.")
@click.option(
    "--n-of-m",
    callback=n_of_m,
    metavar="N:M",
    help="Keep N of every M elements in a row, such as 2:4, instead of a ratio.",
)
@click.option(
    "--along", type=int, default=1, show_default=True, help="The dimension of rows for --n-of-m."
)
@click.option("--global", "all_together", is_flag=True, help="Elements of all tensors compete.")
@click.option(
    "--largest",
    callback=share(above=True),
    metavar="SHARE",
    default="100%",
    show_default=True,
    help="Largest share of its elements that a tensor loses, with --global.",
)
@click.option(
    "--criterion",
    type=click.Choice(["magnitude", "random", "taylor", "obd", "wanda"]),
    default="magnitude",
    show_default=True,
    help="Importance of an element.",
)
@click.option(
    "--statistics",
    "collected",
    type=FILE,
    metavar="FILE",
    help="Statistics of planc.calibrate, for criteria from taylor on.",
)
@name_options("parameters")
@model_options
@output_option("The mask plan's file; without it, only show.")
@json_option
def mask(
    model: str,
    given: Given,
    ratio: float | None,
    n_of_m: tuple[int, int] | None,
    along: int,
    all_together: bool,
    largest: float,
    criterion: str,
    collected: Path | None,
    keep: tuple[str, ...],
    only: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Make a mask plan for MODEL, which removes single elements; show it, and save it.

    planc apply sets the elements to zero; planc show, diff and restore accept mask plans, too.

    Example: planc mask torchvision:resnet18 --n-of-m 2:4 --keep conv1 -o 2of4.masks
    """
    if n_of_m is not None and (ratio is not None or all_together):
        raise click.UsageError("--n-of-m says how many elements go: leave --ratio, --global out")
    if largest < 1 and not all_together:
        raise click.UsageError("--largest is for elements of all tensors: give --global, too")
    check_writable(output)
    import planc
    from planc import masks
    from planc.cli.report.masks import masks_json, masks_screen

    wanted = 0.5 if ratio is None else ratio
    policy: masks.MaskPolicy = masks.PerTensor(wanted)
    if n_of_m is not None:
        policy = masks.NofM(*n_of_m, along)
    elif all_together:
        policy = masks.GlobalElements(wanted, largest)
    statistics = None if collected is None else planc.load_statistics(collected)
    built = given.build(model)
    with status(f"choosing elements of {model}"):
        result = masks.select(
            built,
            policy,
            criterion,
            statistics=statistics,
            only=only,
            keep=keep,
            seed=given.seed,
        )
    result = named_origin(result, given, model)
    if as_json:
        print_json(masks_json(result))
    else:
        show(masks_screen(result, columns()))
    if output is not None:
        planc.save_masks(result, output)
        note(f"wrote {output}\nnext: {shlex.join(['planc', 'show', str(output)])}")
