"""``planc apply``: cut weights by a plan. Without a MODEL, torch is not imported."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli import options
from planc.cli.models import MODEL, Given, model_options
from planc.cli.options import FILE, json_option, weights_output_option
from planc.cli.terminal import check_writable, note, print_json, status
from planc.errors import PlancError, PlancWarning

if TYPE_CHECKING:
    from planc.files.cut import Applied
    from planc.files.cut.ranks import Ranks
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan

_MIB = 1 << 20
_Done = dict[str, Any]
"""What was done, as plain data."""


@click.command()
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("model", type=MODEL, required=False)
@model_options
@weights_output_option("The smaller weights: a .safetensors file, or a new directory.")
@click.option(
    "--sha256",
    metavar="HEX",
    callback=options.sha256,
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
@json_option
@click.option(
    "--stale-config",
    is_flag=True,
    help="Keep a config.json of the original where none can describe the result.",
)
def apply(
    plan_file: Path,
    model: str | None,
    given: Given,
    output: Path,
    sha256: str | None,
    keep_removed: Path | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    stale_config: bool,
) -> None:
    """Apply PLAN to weights; write the smaller ones as safetensors. A mask plan makes zeros.

    The weights are those of --weights, else those of MODEL: a safetensors file, or a directory of
    one or of shards with their index. Without MODEL, tensors are cut by the plan alone, one after
    another, whatever the total size; an interrupted run goes on where it was. Started by torchrun
    on every process, each process cuts its share of the shards. With MODEL, the smaller module is
    built and validated before the same is written.

    Example: planc apply half.planc --weights resnet18.safetensors -o small.safetensors
    """
    source = given.weights if model is None else given.weights_of(model)
    if model is None and source is None:
        raise click.UsageError("name a MODEL, or the weights with --weights, or both")
    if keep_removed is not None and source is None:
        raise click.UsageError("--keep-removed keeps values of --weights: name them")
    if keep_removed is not None and keep_removed.absolute() == output.absolute():
        raise click.UsageError(f"--keep-removed and -o name {output} both: name two places")
    from planc.files.formats.kinds import load_any
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan

    with _ranks() as ranks:
        if model is not None and ranks.size > 1:
            raise click.UsageError("a job of several processes cuts files: leave MODEL out")
        ranks.agree(lambda: check_writable(output, directories=True))
        loaded = ranks.agree(lambda: load_any(plan_file, sha256=sha256))
        trusted = given.trust_pickle, stale_config
        files = _Files(source, output, keep_removed, overwrite, *trusted, ranks)
        given_more = model is not None or given.trust_pickle or ranks.size > 1
        if isinstance(loaded, MaskPlan) and given_more:
            raise click.UsageError(
                f"{plan_file} is a mask plan: it applies to the safetensors of --weights, in one "
                "process; leave MODEL and --trust-pickle out"
            )
        if not isinstance(loaded, Plan | MaskPlan):
            raise PlancError(f"{plan_file} is a latency table: it applies to nothing; name a plan")
        with status(f"applying {plan_file}"):
            if isinstance(loaded, MaskPlan):
                done = files.mask(loaded)
            elif model is None:
                done = files.cut(loaded, workers)
            else:
                done = _save_module(loaded, model, given, files) or files.cut(loaded, workers)
        if as_json and ranks.first:
            print_json({"output": str(output), **done})


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that are read and written."""

    source: Path | None
    output: Path
    keep_removed: Path | None
    overwrite: bool
    trust_pickle: bool
    stale_config: bool
    ranks: Ranks

    def mask(self, plan: MaskPlan) -> _Done:
        from planc.files.cut.masking import mask_files

        assert self.source is not None
        count = mask_files(
            plan,
            self.source,
            self.output,
            keep_removed=self.keep_removed,
            overwrite=self.overwrite,
        )
        note(f"wrote {self.output}: {count:,} elements are zero now")
        return {"zeros": count}

    def cut(self, plan: Plan, workers: int | None) -> _Done:
        import planc

        assert self.source is not None
        cores = min(os.cpu_count() or 1, 8) if self.ranks.size == 1 else 1
        done = planc.apply_files(
            plan,
            self.source,
            self.output,
            keep_removed=self.keep_removed,
            overwrite=self.overwrite,
            workers=workers or cores,
            trust_pickle=self.trust_pickle,
            stale_config=self.stale_config,
            ranks=self.ranks,
        )
        if self.ranks.first:
            _report(done, self.output)
        return asdict(done)


def _save_module(plan: Plan, model: str, given: Given, files: _Files) -> _Done | None:
    """Validate the smaller module; save it, or return None if its weights are cut from files."""
    import planc

    built = given.build(model)
    stored = given.stored(model, built)
    from_files = stored is not None and not stored.prefix and plan.target == "module"
    with warnings.catch_warnings():
        if from_files:
            warnings.simplefilter("ignore", PlancWarning)  # it is said of the files
        smaller = planc.apply(plan, built)
    if from_files:
        return None
    if files.keep_removed is not None:
        raise PlancError(
            "--keep-removed keeps values of weights under the model's own names, for a plan with "
            "--target module: leave it out"
        )
    planc.save(files.output, smaller, plan, overwrite=files.overwrite)
    before, after = plan.cost_before.params, plan.cost_after.params
    note(f"wrote {files.output}: {before:,} parameters became {after:,}")
    return {"parameters": {"before": before, "after": after}}


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
    if not done.compared:
        note("the weights were not compared with those that the plan was computed from")
    if not done.described:
        note("config.json does not describe the result: load it with planc.load")
    note(f"wrote {output}: {done.before / _MIB:,.1f} MiB became {done.after / _MIB:,.1f} MiB")
