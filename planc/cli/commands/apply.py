"""``planc apply``: cut weights by a plan. Without a MODEL, torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planc.cli.models import Given, model_options
from planc.cli.options import EXIT_CODES, FILE, weights_output_option
from planc.cli.terminal import check_writable, note, status
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.files.cut import Applied
    from planc.files.cut.ranks import Ranks

_MIB = 1 << 20


@click.command(epilog=EXIT_CODES)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("model", required=False)
@model_options
@weights_output_option("The smaller weights: a .safetensors file, or a new directory.")
@click.option(
    "--sha256",
    metavar="HEX",
    help="Digest of the reviewed plan file; any other file is refused.",
)
@click.option(
    "--keep-removed",
    type=FILE,
    metavar="DIR",
    help="Write the removed values to a new directory, for planc restore.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    show_default="cores, 8 at most; 1 in a job",
    help="Processes that cut shards at the same time.",
)
@click.option(
    "--trust-pickle",
    is_flag=True,
    help="Read weights that are pickles (.pt, .bin, a native torch.distributed.checkpoint).",
)
def apply(
    plan_file: Path,
    model: str | None,
    given: Given,
    output: Path,
    sha256: str | None,
    keep_removed: Path | None,
    workers: int | None,
    trust_pickle: bool,
    overwrite: bool,
) -> None:
    """Apply PLAN to weights; write the smaller ones as safetensors. A mask plan makes zeros.

    The weights are those of --weights, else those of MODEL: a safetensors file, or a directory of
    one or of shards with their index. Without MODEL, tensors are cut by the plan alone, one after
    another, whatever the total size; an interrupted run goes on where it was. Started by torchrun
    on every process, each process cuts its share of the shards. With MODEL, the smaller module is
    built and validated too.

    Example: planc apply half.planc --weights resnet18.safetensors -o small.safetensors
    """
    weights = given.weights
    if model is None and weights is None:
        raise click.UsageError("name a MODEL, or the weights with --weights, or both")
    if keep_removed is not None and model is not None:
        raise click.UsageError("--keep-removed is for --weights alone: leave MODEL out")
    import planc
    from planc.files.cut.masking import mask_files
    from planc.files.formats.kinds import load_any
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan

    with _ranks() as ranks:
        if model is not None and ranks.size > 1:
            raise click.UsageError("a job of several processes cuts files: leave MODEL out")
        ranks.agree(lambda: check_writable(output, directories=True))
        loaded = ranks.agree(lambda: load_any(plan_file, sha256=sha256))
        if isinstance(loaded, MaskPlan):
            if weights is None or model is not None or trust_pickle or ranks.size > 1:
                raise click.UsageError(
                    f"{plan_file} is a mask plan: it applies to the safetensors of --weights, in "
                    "one process; leave MODEL and --trust-pickle out"
                )
            with status(f"applying {plan_file}"):
                count = mask_files(
                    loaded, weights, output, keep_removed=keep_removed, overwrite=overwrite
                )
            note(f"wrote {output}: {count:,} elements are zero now")
            return
        if not isinstance(loaded, Plan):
            raise PlancError(f"{plan_file} is a latency table: it applies to nothing; name a plan")
        if model is not None:
            with status(f"applying {plan_file}"):
                smaller = planc.apply(loaded, given.build(model))
                planc.save(output, smaller, loaded, overwrite=overwrite)
            before, after = loaded.cost_before.params, loaded.cost_after.params
            note(f"wrote {output}: {before:,} parameters became {after:,}")
            return
        assert weights is not None
        cores = min(os.cpu_count() or 1, 8) if ranks.size == 1 else 1
        with status(f"applying {plan_file}"):
            done = planc.apply_files(
                loaded,
                weights,
                output,
                keep_removed=keep_removed,
                overwrite=overwrite,
                workers=workers or cores,
                trust_pickle=trust_pickle,
                ranks=ranks,
            )
        if ranks.first:
            _report(done, output)


@contextmanager
def _ranks() -> Iterator[Ranks]:
    """Yield the processes started by a launcher such as torchrun, else this one alone."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        from planc.files.cut.ranks import Ranks

        yield Ranks()
        return
    import planc

    with planc.job() as ranks:
        yield ranks


def _report(done: Applied, output: Path) -> None:
    if done.cut < done.shards:
        note(f"{done.shards - done.cut} of {done.shards} shards were there from an earlier run")
    if done.outside:
        note(f"left out, being no part of the state dict: {', '.join(done.outside)}")
    if not done.described:
        note("config.json does not describe the result: load it with planc.load")
    note(f"wrote {output}: {done.before / _MIB:,.1f} MiB became {done.after / _MIB:,.1f} MiB")
