"""Applying a plan to files: what is there is checked, then every shard is cut, then the result
takes its place.

Everything that headers can tell is checked before the first byte is written. Shards are cut into a
directory beside the target; one that is finished is kept when the run is interrupted, and the next
run with the same plan and the same files goes on from there.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

from planc.codec import encode_plan
from planc.codec.files import read_file, replacing
from planc.codec.limits import DEFAULT, Limits
from planc.errors import PlancError, StalePlan
from planc.fingerprint import check_state_dict
from planc.plan import Plan
from planc.streaming import configuration
from planc.streaming.besides import copy_besides, write_index
from planc.streaming.layout import Layout, lay_out
from planc.streaming.removed import keep_removed as keep_removed_values
from planc.streaming.shard import Cutting, Done, cut_shard, finished
from planc.streaming.sources import find_source
from planc.streaming.staging import TEMPORARY, staging
from planc.tensorfiles.directories import check_free
from planc.tensorfiles.reader import is_directory, is_same_file
from planc.tensorfiles.shards import SUFFIX, ShardSet
from planc.tensorfiles.writer import rewrite


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


def apply_files(
    plan: Plan,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keep_removed: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    trust_pickle: bool = False,
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

    Raises:
        StalePlan, AlreadyApplied: the plan was not made for these tensors.
        ShardMismatch: the files do not belong together.
        PlancError: the target exists, or another process writes it.
        FileError, OSError: a file is malformed or damaged, cannot be read or written.
    """
    source, target = Path(source), Path(os.path.realpath(target))
    found = find_source(source, plan, trust_pickle, limits)
    alone = found.index is None and not is_directory(source)  # its neighbours are not its own
    single = alone and target.name.endswith(SUFFIX)
    _check(plan, found, target)
    if not single:
        check_free(target, overwrite)
    besides = {} if alone else _changed_besides(plan, found, limits)
    layout = lay_out(plan, found, limits)
    if keep_removed is not None:
        place = Path(os.path.realpath(keep_removed))
        keep_removed_values(plan, found, place, [*besides], overwrite, limits)
    if single:
        with replacing(target) as descriptor:
            done = cut_shard(layout.cutting[0], descriptor)
            rewrite(descriptor, layout.first_header([done]))
        cut = 1
    else:
        with staging(target, _identity(plan, found), overwrite) as directory:
            cut = _cut_all(layout, directory, workers)
            if found.index is not None:
                write_index(directory, found.index, layout.entries())
            if not alone:
                copy_besides(found.directory, directory, besides)
    before = sum(shard.header.size - shard.header.data for shard in found.shards)
    after = sum(entry.stop - entry.start for entry in layout.entries())
    described = configuration.FILE not in besides or configuration.describes(plan)
    return Applied(before, after, len(found.shards), cut, described, found.outside)


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
        raise StalePlan(f"{found.directory}: {error}") from None
    for path in (found.directory, *(path for shard in found.shards for path in shard.files)):
        if is_same_file(path, target):
            raise PlancError(f"{target} is what is read: name another place for the result")


def _changed_besides(plan: Plan, found: ShardSet, limits: Limits) -> dict[str, bytes]:
    """The files beside the shards that say something else afterwards."""
    path = found.directory / configuration.FILE
    if not path.is_file():
        return {}
    text = read_file(path, limits.index)
    return {path.name: configuration.described(text, plan, str(path))}


def _identity(plan: Plan, found: ShardSet) -> str:
    """Names what an interrupted run was about: the same plan and the same files, untouched."""
    digest = sha256(encode_plan(plan))
    for shard in found.shards:
        digest.update(shard.header.digest)
        for path in shard.files:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _cut_all(layout: Layout, directory: Path, workers: int) -> int:
    """Cuts the shards that are not there yet; returns how many.

    The first one, which has the record with the digests of all, gets its name when all are done.
    """
    first = directory / f".{layout.cutting[0].name}.{TEMPORARY}"
    done: dict[int, Done] = {}
    for number, cutting in enumerate(layout.cutting[1:], 1):
        there = finished(directory / cutting.name, cutting, layout.limits)
        if there is not None:
            done[number] = there
    waiting = [number for number in range(len(layout.cutting)) if number not in done]
    jobs = [
        (layout.cutting[number], directory / layout.cutting[number].name if number else first)
        for number in waiting
    ]
    if workers > 1 and len(jobs) > 1:
        # not fork: the caller's threads, torch's among them, do not survive it
        try:
            with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn")) as pool:
                results = list(pool.map(_cut_into, jobs))
        except BrokenProcessPool:
            raise PlancError(
                f"{directory}: a worker died; guard the calling script by if __name__ == "
                '"__main__", give it more memory, or cut with workers=1; finished shards are kept'
            ) from None
    else:
        results = [_cut_into(job) for job in jobs]
    done.update(zip(waiting, results, strict=True))
    descriptor = os.open(first, os.O_WRONLY)
    try:
        rewrite(descriptor, layout.first_header([done[n] for n in range(len(layout.cutting))]))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    first.replace(directory / layout.cutting[0].name)
    return len(waiting)


def _cut_into(job: tuple[Cutting, Path]) -> Done:
    cutting, path = job
    with replacing(path) as descriptor:
        return cut_shard(cutting, descriptor)
