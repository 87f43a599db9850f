"""Applying a plan to files: what is there is checked, then every shard is cut, then the result
takes its place.

Everything that headers can tell is checked before the first byte is written. Shards are cut into a
directory beside the target; one that is finished is kept when the run is interrupted, and the next
run with the same plan and the same files goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from planc.errors import PlancError, StalePlan
from planc.files.cut import configuration
from planc.files.cut.besides import besides, copy_besides, write_index
from planc.files.cut.layout import Layout, lay_out
from planc.files.cut.ranks import Ranks
from planc.files.cut.removed import keep_removed as keep_removed_values
from planc.files.cut.shard import Done, cut_shard
from planc.files.cut.sources import find_source
from planc.files.cut.workers import cut_shards, finish_first, shards_done
from planc.files.disk.atomic import read_file, replacing
from planc.files.disk.directories import prepare
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.disk.staging import joining, staging
from planc.files.tensors.reader import is_directory
from planc.files.tensors.shards import SUFFIX, ShardSet, check_apart
from planc.files.tensors.writer import rewrite
from planc.modules.wrappers import prefix_of
from planc.plan.arguments import a_count, a_flag, a_path, a_plan, instance, optional, takes
from planc.plan.fingerprint import check_state_dict
from planc.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Applied:
    """What was written: bytes of all tensors before and after, how many shards there are, and how
    many of them were cut in this run (the others were there from an interrupted one); whether
    the ``config.json`` beside them, if there is one, describes the result; what a training
    checkpoint held beside the state dict, and is not in the result.
    """

    before: int
    after: int
    shards: int
    cut: int
    described: bool = True
    outside: tuple[str, ...] = ()


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
    ranks: Ranks | None = None,
    limits: Limits = DEFAULT,
) -> Applied:
    """Writes the checkpoint at ``source`` without what the plan removes to ``target``.

    Names of shards, their index, dtypes, metadata and the files beside them stay. The result also
    is a checkpoint that :func:`planc.load` and :func:`planc.inspect` read.

    Args:
        plan: the plan, made for the model whose state dict ``source`` holds.
        source: a safetensors file, an index, or a directory of either; a directory of
            torch.distributed.checkpoint in its safetensors form; with ``trust_pickle`` one in its
            own form, a ``.pt`` or ``.bin`` state dict, or an index of those.
        target: a new directory; for a single file also a name that ends in ``.safetensors``.
        keep_removed: a new directory for what is removed, for :func:`restore_files`.
        overwrite: replace directories that are there.
        workers: processes that cut shards at the same time; each starts by importing the script
            that calls this, which needs its ``if __name__ == "__main__"`` then.
        trust_pickle: read what is a pickle, which can run code, with torch's ``weights_only``. The
            result has the names that safetensors files have, such as ``model.safetensors``.
        ranks: the processes of a job, all of which call this with the same arguments and one file
            system: see :func:`planc.job`. Each cuts its share; the first puts the result in its
            place when all have. Where one fails, none returns, and there is no result.

    Raises:
        StalePlan, AlreadyApplied: the plan was not made for these tensors.
        ShardMismatch: the files do not belong together.
        PlancError: the target exists, or another process writes it; another rank failed.
        FileError, OSError: a file is malformed or damaged, cannot be read or written.
    """
    source, target = Path(source), Path(os.path.realpath(target))
    ranks = ranks or Ranks()
    task = ranks.agree(lambda: _task(plan, source, target, overwrite, trust_pickle, limits))
    _check_equal(task, ranks)
    if keep_removed is not None:
        place = Path(os.path.realpath(keep_removed))
        besides = [*task.besides]
        ranks.once(lambda: keep_removed_values(plan, task.found, place, besides, overwrite, limits))
    if task.single:
        ranks.once(lambda: _write_file(task.layout, target))
        cut = 1
    else:
        cut = _write_directory(task, target, overwrite, workers, ranks)
    found = task.found
    before = sum(shard.header.size - shard.header.data for shard in found.shards)
    after = sum(entry.stop - entry.start for entry in task.layout.entries())
    described = configuration.FILE not in task.besides or configuration.describes(plan)
    return Applied(before, after, len(found.shards), cut, described, found.outside)


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be done, known from the plan and from headers."""

    found: ShardSet
    layout: Layout
    besides: dict[str, bytes]  # files beside the shards that say something else afterwards
    alone: bool  # one file, whose neighbours are not its own
    single: bool  # the result is one file, too


def _task(
    plan: Plan, source: Path, target: Path, overwrite: bool, trust_pickle: bool, limits: Limits
) -> _Task:
    found = find_source(source, plan, trust_pickle, limits)
    alone = found.index is None and not is_directory(source)
    single = alone and target.name.endswith(SUFFIX)
    _check(plan, found, target)
    if not single:
        prepare(target, overwrite)
    besides = {} if alone else _changed_besides(plan, found, limits)
    return _Task(found, lay_out(plan, found, limits), besides, alone, single)


def _check_equal(task: _Task, ranks: Ranks) -> None:
    """Returns if all processes are about the same."""
    digest = sha256(task.layout.plan)
    for shard in task.found.shards:
        digest.update(shard.header.digest)
    everyone = ranks.gather(digest.hexdigest())
    other = next((rank for rank, found in enumerate(everyone) if found != everyone[0]), None)
    if other is not None:
        raise PlancError(
            f"rank {other}: has another plan or other files than rank 0; start all with the same"
        )


def _write_file(layout: Layout, target: Path) -> None:
    with replacing(target) as descriptor:
        done = [cut_shard(cutting, descriptor) for cutting in layout.cutting]  # which is one
        rewrite(descriptor, layout.first_header(done))


def _write_directory(task: _Task, target: Path, overwrite: bool, workers: int, ranks: Ranks) -> int:
    """Writes the result; returns how many shards were cut for that."""
    layout, found = task.layout, task.found
    with ExitStack() as held:

        def begin() -> tuple[Path, dict[int, Done]]:
            stage = staging(target, _identity(layout.plan, found), overwrite, ranks.size > 1)
            directory = held.enter_context(stage)
            return directory, shards_done(layout, directory)

        begun = ranks.results(lambda: begin() if ranks.first else None)[0]
        assert begun is not None
        directory, done = begun
        ranks.agree(lambda: None if ranks.first else held.enter_context(joining(target)))
        waiting = [number for number in range(len(layout.cutting)) if number not in done]
        for part in ranks.results(lambda: cut_shards(layout, directory, waiting, workers, ranks)):
            done |= part

        def finish() -> None:
            finish_first(layout, directory, [done[n] for n in range(len(layout.cutting))])
            if found.index is not None:
                write_index(directory, found.index, layout.entries())
            if not task.alone:
                copy_besides(found.directory, directory, task.besides)
            held.close()

        ranks.once(finish)
    return len(waiting)


def _check(plan: Plan, found: ShardSet, target: Path) -> None:
    """What can be known before anything is written."""
    if plan.target != "module":
        raise PlancError(
            "the plan is for a rewritten graph, which only the model's code can make: apply it to "
            "the model, or compile it with target='module'"
        )
    shapes = {name: entry.shape for name, (_, entry) in found.entries().items()}
    try:
        check_state_dict(plan, shapes)
    except StalePlan as error:
        raise StalePlan(f"{found.directory}: {error}{_wrapped(plan, shapes)}") from None
    check_apart(found, target)


def _wrapped(plan: Plan, names: Iterable[str]) -> str:
    """What to do where the names are the model's but for the prefix of a wrapper."""
    prefix = prefix_of(names, {name for spec in plan.tensors for name in spec.names})
    if not prefix:
        return ""
    return (
        f"; every name begins with {prefix!r}, which a wrapper such as DistributedDataParallel "
        "puts there: save the state_dict() of the model inside, or apply the plan to the state "
        "dict in memory"
    )


def _changed_besides(plan: Plan, found: ShardSet, limits: Limits) -> dict[str, bytes]:
    """The files beside the shards that say something else afterwards."""
    path = next((p for p in besides(found.directory) if p.name == configuration.FILE), None)
    if path is None:
        return {}
    text = read_file(path, limits.index)
    return {path.name: configuration.described(text, plan, str(path))}


def _identity(plan: bytes, found: ShardSet) -> str:
    """Names what an interrupted run was about: the same plan and the same files, untouched."""
    digest = sha256(plan)
    for shard in found.shards:
        digest.update(shard.header.digest)
        for path in shard.files:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
