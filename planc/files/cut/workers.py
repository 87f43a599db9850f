"""Cutting the shards of a checkpoint, by one process, several, or those of a job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from planc.errors import PlancError
from planc.files.cut.layout import Layout
from planc.files.cut.ranks import Ranks, shares
from planc.files.cut.shard import Cutting, Done, cut_shard, finished
from planc.files.disk.atomic import naming, replacing
from planc.files.disk.beside import beside
from planc.files.disk.staging import TEMPORARY
from planc.files.tensors.writer import rewrite

_Job = tuple[Cutting, Path]


def shards_done(layout: Layout, directory: Path) -> dict[int, Done]:
    """Return the shards finished by an earlier run, by number; never the first one."""
    found = {}
    for number, cutting in enumerate(layout.cutting[1:], 1):
        there = finished(directory / cutting.name, cutting)
        if there is not None:
            found[number] = there
    return found


def cut_shards(
    layout: Layout, directory: Path, waiting: Sequence[int], workers: int, ranks: Ranks
) -> dict[int, Done]:
    """Cut this process's share of the waiting shards; return the finished ones by number.

    The first shard holds the record with the digests of all shards. It has another name until all
    are done: see :func:`finish_first`.
    """
    sizes = [_size(layout.cutting[number]) for number in waiting]
    own = [waiting[i] for i in shares(sizes, ranks.size)[ranks.rank]]
    jobs = [
        (
            layout.cutting[number],
            directory / layout.cutting[number].name if number else _first(layout, directory),
        )
        for number in own
    ]
    return dict(zip(own, _cut(jobs, workers, directory), strict=True))


def finish_first(layout: Layout, directory: Path, done: Sequence[Done]) -> None:
    """Complete the first shard and rename it, after all are done."""
    first = _first(layout, directory)
    descriptor = os.open(first, os.O_WRONLY)
    try:
        with naming(first):
            rewrite(descriptor, layout.first_header(done))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    first.replace(directory / layout.cutting[0].name)


def _cut(jobs: Sequence[_Job], workers: int, directory: Path) -> list[Done]:
    if workers == 1 or len(jobs) < 2:
        return [_cut_into(job) for job in jobs]
    # not fork: it does not preserve the caller's threads, including torch's
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn")) as pool:
            return list(pool.map(_cut_into, jobs))
    except BrokenProcessPool:
        raise PlancError(
            f"{directory}: a worker died; guard the calling script by if __name__ == "
            '"__main__", give it more memory, or cut with workers=1; finished shards are kept'
        ) from None


def _cut_into(job: _Job) -> Done:
    cutting, path = job
    with replacing(path) as descriptor:
        return cut_shard(cutting, descriptor)


def _first(layout: Layout, directory: Path) -> Path:
    return beside(directory / layout.cutting[0].name, f".{TEMPORARY}")


def _size(cutting: Cutting) -> int:
    """Return the number of bytes to read and write."""
    read = cutting.source.header
    return read.size - read.data + (cutting.entries[-1].stop if cutting.entries else 0)
