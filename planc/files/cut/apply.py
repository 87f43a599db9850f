"""Applying a plan to files: check everything, cut every shard, move the result into its place.

Everything known from headers is checked before the first byte is written. Shards are cut into a
directory beside the target. An interrupted run leaves its finished shards, and the next run with
the same plan and the same files continues from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from planc.errors import AlreadyApplied, PlancError, StalePlan
from planc.files.cut import configuration
from planc.files.cut.besides import besides, copy_besides
from planc.files.cut.layout import Layout, lay_out
from planc.files.cut.ranks import Ranks
from planc.files.cut.removed import keep_removed as keep_removed_values
from planc.files.cut.shard import Done, cut_shard
from planc.files.cut.workers import cut_shards, finish_first, shards_done
from planc.files.disk.atomic import read_file, replacing
from planc.files.disk.directories import prepare
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.disk.staging import joining, staging
from planc.files.formats.checkpoint import KEY, decode_checkpoint
from planc.files.pickles.sources import find_source
from planc.files.tensors.header import TORCH_NAMES
from planc.files.tensors.indexing import write_index
from planc.files.tensors.reader import is_directory
from planc.files.tensors.shards import SUFFIX, ShardSet, check_apart
from planc.files.tensors.writer import rewrite
from planc.modules.wrappers import prefix_of
from planc.plan.arguments import a_count, a_flag, a_path, a_plan, instance, optional, takes
from planc.plan.depth import refuse_blocks
from planc.plan.fingerprint import check_state_dict
from planc.plan.plan import Plan
from planc.plan.weights import expected_weights, warn_if_different, weights_digest


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of :func:`apply_files`.

    Attributes:
        before: bytes of all tensors of the source.
        after: bytes of all tensors of the result.
        shards: number of shards.
        cut: number of shards cut by this run; an interrupted run has cut the others.
        described: True unless the ``config.json`` beside the shards no longer describes the result.
        outside: entries of a training checkpoint beside the state dict, left out of the result.
        compared: False if the plan has a digest of its weights and the source's were not compared.
    """

    before: int
    after: int
    shards: int
    cut: int
    described: bool = True
    outside: tuple[str, ...] = ()
    compared: bool = True


@takes(
    plan=a_plan,
    source=a_path,
    target=a_path,
    keep_removed=optional(a_path),
    workers=a_count,
    ranks=optional(instance("ranks", Ranks, advice="give what planc.job gives")),
    limits=limits_given,
    overwrite=a_flag,
    trust_pickle=a_flag,
    stale_config=a_flag,
)
def apply_files(
    plan: Plan,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keep_removed: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    trust_pickle: bool = False,
    stale_config: bool = False,
    ranks: Ranks | None = None,
    limits: Limits = DEFAULT,
) -> Applied:
    """Write the checkpoint at ``source`` without the units removed by the plan to ``target``.

    Shard names, the index, dtypes, metadata and files beside the shards are kept. The result is
    also a checkpoint for :func:`planc.load` and :func:`planc.inspect`.

    Args:
        plan: the plan, made for the model of the state dict in ``source``.
        source: a safetensors file, an index, or a directory of either; a directory of
            torch.distributed.checkpoint in its safetensors form; with ``trust_pickle`` one in its
            own form, a ``.pt`` or ``.bin`` state dict, or an index of those.
        target: a new directory; for a single file also a name ending in ``.safetensors``.
        keep_removed: a new directory for the removed values, for :func:`restore_files`.
        overwrite: replace existing directories.
        workers: number of processes cutting shards in parallel; each imports the calling script,
            so the script needs its ``if __name__ == "__main__"``.
        trust_pickle: read pickles, although they can run code, with torch's ``weights_only``. The
            result has the names of safetensors files, such as ``model.safetensors``.
        stale_config: write a ``config.json`` that describes the original, where none describes the
            result; without it, such a plan is refused.
        ranks: the processes of a job, all calling this with the same arguments and one file
            system: see :func:`planc.job`. Each cuts its share; the first moves the result into its
            place after the last is done. If one fails, all raise and there is no result.
        limits: bounds on headers, records and index.

    Raises:
        StalePlan, AlreadyApplied: the plan was not made for these tensors.
        ShardMismatch: the files do not belong together.
        PlancError: the target exists, or another process writes it; another rank failed.
        FileError, OSError: a file is malformed or damaged, cannot be read or written.

    Warns:
        PlancWarning: the weights differ from those that the plan was computed from. They are not
            compared if the source is larger than 1 GiB, which would take a third more time, or if
            shards are left from an interrupted run.
    """
    source, target = Path(source), Path(os.path.realpath(target))
    ranks = ranks or Ranks()
    keeps = keep_removed is not None
    task = ranks.agree(lambda: _task(plan, source, target, overwrite, trust_pickle, keeps, limits))
    text = task.besides.get(configuration.FILE)
    described = text is None or configuration.describes(plan)
    lies = text is not None and configuration.names_model(text, str(source))
    if lies and not described and not stale_config:
        raise PlancError(
            f"{source}: {configuration.FILE} cannot describe the result of this plan; compile it "
            "with loadable=True (planc plan --loadable), or say stale_config=True (planc apply "
            "--stale-config) to write the original's, and load the result with planc.load"
        )
    _check_equal(task, ranks)
    if keep_removed is not None:
        place = Path(os.path.realpath(keep_removed))
        besides = [*task.besides]
        ranks.once(lambda: keep_removed_values(plan, task.found, place, besides, overwrite, limits))
    done: dict[int, Done] = {}
    if task.single:
        ranks.once(lambda: done.update(_write_file(task.layout, target)))
        cut = 1
    else:
        cut = _write_directory(task, target, overwrite, workers, ranks, done)
    found = task.found
    weights = _weights(plan, task.layout, done)
    if ranks.first:
        warn_if_different(plan, weights, str(source))
    compared = expected_weights(plan) is None or ranks.gather(weights is not None)[0]
    before = sum(shard.header.size - shard.header.data for shard in found.shards)
    after = sum(entry.stop - entry.start for entry in task.layout.entries())
    return Applied(before, after, len(found.shards), cut, described, found.outside, compared)


@dataclass(frozen=True, slots=True)
class _Task:
    """The work to do, known from the plan and the headers."""

    found: ShardSet
    layout: Layout
    besides: dict[str, bytes]  # new content of files beside the shards, by name
    alone: bool  # a single file; files beside it belong to others
    single: bool  # the result is one file as well


def _task(
    plan: Plan,
    source: Path,
    target: Path,
    overwrite: bool,
    trust_pickle: bool,
    keeps: bool,
    limits: Limits,
) -> _Task:
    found = find_source(source, plan.tensors, trust_pickle, limits)
    alone = found.index is None and not is_directory(source)
    single = alone and target.name.endswith(SUFFIX)
    _check(plan, found, target, keeps, limits)
    if not single:
        prepare(target, overwrite)
    besides = {} if alone else _changed_besides(plan, found, limits)
    return _Task(found, lay_out(plan, found, limits), besides, alone, single)


def _check_equal(task: _Task, ranks: Ranks) -> None:
    """Check that all processes have the same plan and files."""
    digest = sha256(task.layout.plan)
    for shard in task.found.shards:
        digest.update(shard.header.digest)
    everyone = ranks.gather(digest.hexdigest())
    other = next((rank for rank, found in enumerate(everyone) if found != everyone[0]), None)
    if other is not None:
        raise PlancError(
            f"rank {other}: has another plan or other files than rank 0; start all with the same"
        )


def _weights(plan: Plan, layout: Layout, done: Mapping[int, Done]) -> bytes | None:
    """Return the digest of the source's weights; None without those of all its parameters."""
    digests = {name: digest for part in done.values() for name, digest in part.sources}
    rows = {
        entry.name: (TORCH_NAMES.get(entry.dtype, entry.dtype), entry.shape, digests[entry.name])
        for cutting in layout.cutting
        for entry in cutting.source.header.entries
        if entry.name in digests
    }
    return weights_digest(plan.tensors, rows)


def _write_file(layout: Layout, target: Path) -> dict[int, Done]:
    with replacing(target) as descriptor:
        done = [cut_shard(cutting, descriptor) for cutting in layout.cutting]  # a single one
        rewrite(descriptor, layout.first_header(done))
    return dict(enumerate(done))


def _write_directory(
    task: _Task,
    target: Path,
    overwrite: bool,
    workers: int,
    ranks: Ranks,
    done: dict[int, Done],
) -> int:
    """Write the result; collect the finished shards, and return the number of those cut for it."""
    layout, found = task.layout, task.found
    with ExitStack() as held:

        def begin() -> tuple[Path, dict[int, Done]]:
            stage = staging(target, _identity(layout.plan, found), overwrite, ranks.size > 1)
            directory = held.enter_context(stage)
            return directory, shards_done(layout, directory)

        begun = ranks.results(lambda: begin() if ranks.first else None)[0]
        assert begun is not None
        directory, earlier = begun
        done.update(earlier)
        ranks.agree(lambda: None if ranks.first else held.enter_context(joining(target)))
        waiting = [number for number in range(len(layout.cutting)) if number not in done]
        for part in ranks.results(lambda: cut_shards(layout, directory, waiting, workers, ranks)):
            done.update(part)

        def finish() -> None:
            finish_first(layout, directory, [done[n] for n in range(len(layout.cutting))])
            if found.index is not None:
                write_index(directory, found.index, layout.entries())
            if not task.alone:
                copy_besides(found.directory, directory, task.besides)
            held.close()

        ranks.once(finish)
    return len(waiting)


def _check(plan: Plan, found: ShardSet, target: Path, keeps: bool, limits: Limits) -> None:
    """Check plan, tensors and target before anything is written."""
    if keeps:
        refuse_blocks(
            plan, "keep_removed", "apply it without, or to the state dict, keeping its values there"
        )
    if plan.target != "module":
        raise PlancError(
            "the plan is for a rewritten graph, which only the model's code can make: apply it to "
            "the model, or compile it with target='module'"
        )
    shapes = {name: entry.shape for name, (_, entry) in found.entries().items()}
    try:
        check_state_dict(plan, shapes)
    except (StalePlan, AlreadyApplied) as error:
        if isinstance(error, AlreadyApplied) and _of_another_plan(found, plan, limits):
            raise StalePlan(
                f"{found.where}: was pruned by another plan, to the same shapes: apply this plan "
                "to the original, or compare the plans with planc diff"
            ) from None
        raise type(error)(f"{found.where}: {error}{_wrapped(plan, shapes)}") from None
    check_apart(found, target)


def _of_another_plan(found: ShardSet, plan: Plan, limits: Limits) -> bool:
    """True if the files are a checkpoint of planc made by a plan other than ``plan``."""
    metadata = found.shards[0].header.metadata
    return KEY in metadata and decode_checkpoint(metadata, limits=limits).plan != plan


def _wrapped(plan: Plan, names: Iterable[str]) -> str:
    """Return advice if the names are the model's under a wrapper's prefix."""
    prefix = prefix_of(names, {name for spec in plan.tensors for name in spec.names})
    if not prefix:
        return ""
    return (
        f"; every name begins with {prefix!r}, which a wrapper such as DistributedDataParallel "
        "puts there: save the state_dict() of the model inside, or apply the plan to the state "
        "dict in memory"
    )


def _changed_besides(plan: Plan, found: ShardSet, limits: Limits) -> dict[str, bytes]:
    """Return the new content of files beside the shards, by name."""
    path = next((p for p in besides(found.directory) if p.name == configuration.FILE), None)
    if path is None:
        return {}
    text = read_file(path, limits.index)
    return {path.name: configuration.described(text, plan, str(path))}


def _identity(plan: bytes, found: ShardSet) -> str:
    """Return a digest of the plan and the unmodified files, to recognise an interrupted run."""
    digest = sha256(plan)
    for shard in found.shards:
        digest.update(shard.header.digest)
        for path in shard.files:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
