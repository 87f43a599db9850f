"""``planc mask``: make a plan of single elements."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.models import MODEL, Given, model_options
from planc.cli.options import n_of_m, name_options, output_option, ratio_option
from planc.cli.terminal import check_writable, note, show, status


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
    help="Importance of an element.",
)
@name_options("parameters")
@model_options
@output_option("The mask plan's file; without it, only show.")
def mask(
    model: str,
    given: Given,
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

    planc apply sets the elements to zero; planc show, diff and restore accept mask plans, too.
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
    scorer = masks.RandomElements(given.seed) if criterion == "random" else masks.ElementMagnitude()
    built = given.build(model)
    with status(f"choosing elements of {model}"):
        result = masks.select(built, policy, scorer, only=only, keep=keep, seed=given.seed)
    show(masks_table(result))
    if output is not None:
        planc.save_masks(result, output)
        note(f"wrote {output}")
