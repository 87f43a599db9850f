"""Claims of cutting shards: one, several in other processes, a share of them; what is finished is
known again, and nothing else is taken for it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from planc.errors import LimitExceeded, ShardMismatch
from planc.files.cut import workers
from planc.files.cut.layout import Layout, lay_out
from planc.files.cut.ranks import Ranks
from planc.files.cut.shard import Cutting, Done, cut_shard, finished
from planc.files.disk.atomic import replacing
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats.checkpoint import KEY, encode_part
from planc.files.tensors.header import place
from planc.files.tensors.opened import open_checkpoint
from planc.files.tensors.reader import read_header
from planc.files.tensors.shards import find_shards
from tests.files.cut import test_layout
from tests.files.cut.test_layout import FILES, PLAN, WHOLE

source = test_layout.source  # a fixture
FIRST = ".1.safetensors.tmp"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def layout(source: Path) -> Layout:
    return lay_out(PLAN, find_shards(source), DEFAULT)


def cut(cutting: Cutting, path: Path) -> Done:
    with replacing(path) as descriptor:
        return cut_shard(cutting, descriptor)


# one shard


def test_a_shard_is_cut_and_its_digests_are_known(layout: Layout, out: Path) -> None:
    for cutting in layout.cutting:
        done = cut(cutting, out / cutting.name)
        header = read_header(out / cutting.name)
        assert done.header == header.digest
        assert [name for name, _ in done.digests] == [entry.name for entry in header.entries]
    assert load_file(out / "1.safetensors")["bias"].tolist() == [0, 3]
    assert load_file(out / "3.safetensors")["same"].tolist() == [0, 1, 2]


def test_a_shard_that_has_changed_is_not_cut(layout: Layout, out: Path) -> None:
    cutting = layout.cutting[2]
    save_file({"same": np.zeros(3, np.uint8)}, cutting.source.path)
    with pytest.raises(ShardMismatch, match=r"3\.safetensors: was changed while it was read; run"):
        cut(cutting, out / cutting.name)
    assert names(out) == []


def test_a_shard_is_read_within_its_limits(layout: Layout, out: Path) -> None:
    cutting = replace(layout.cutting[2], limits=Limits(tensors=0))
    with pytest.raises(LimitExceeded):
        cut(cutting, out / cutting.name)


def test_a_finished_shard_is_known_again(layout: Layout, out: Path) -> None:
    cutting, other = layout.cutting[1:]
    path = out / cutting.name
    assert finished(path, cutting) is None
    done = cut(cutting, path)
    assert finished(path, cutting) == done
    assert finished(path, other) is None
    assert finished(path, replace(cutting, limits=Limits(tensors=0))) is None
    assert finished(path, replace(cutting, limits=Limits(record=1))) is None
    assert finished(path, replace(cutting, metadata={**cutting.metadata, "more": ""})) is None
    again = place([("down", "I32", (5, 2))])
    assert again[0].stop == cutting.entries[0].stop
    assert finished(path, replace(cutting, entries=again)) is None
    for content in (path.read_bytes()[:-1], path.read_bytes() + b"x", b""):
        path.write_bytes(content)
        assert finished(path, cutting) is None


# all of them


@pytest.mark.parametrize("count", [1, 2])
def test_all_shards_are_cut_and_the_first_waits_for_its_record(
    layout: Layout, out: Path, count: int
) -> None:
    assert workers.shards_done(layout, out) == {}
    done = workers.cut_shards(layout, out, [0, 1, 2], count, Ranks())
    assert list(done) == [0, 1, 2]
    assert names(out) == [FIRST, "2.safetensors", "3.safetensors"]
    assert workers.shards_done(layout, out) == {1: done[1], 2: done[2]}
    workers.finish_first(layout, out, [done[i] for i in range(3)])
    assert names(out) == list(FILES)
    assert open_checkpoint(out / "1.safetensors").checkpoint.plan == PLAN
    assert workers.shards_done(layout, out) == {1: done[1], 2: done[2]}


def test_only_what_waits_is_cut(layout: Layout, out: Path) -> None:
    done = workers.cut_shards(layout, out, [2], 1, Ranks())
    assert list(done) == [2]
    assert names(out) == ["3.safetensors"]
    assert workers.cut_shards(layout, out, [], 1, Ranks()) == {}


def test_ranks_have_shares_of_about_the_same_size(layout: Layout, out: Path) -> None:
    """Read and written are 42, 120 and 6 bytes."""
    shares = [
        sorted(workers.cut_shards(layout, out, [0, 1, 2], 1, Ranks(rank, 2))) for rank in range(2)
    ]
    assert shares == [[1], [0, 2]]


def test_what_is_read_and_written_counts(source: Path, out: Path) -> None:
    layout = lay_out(PLAN, find_shards(source), DEFAULT)
    sizes = [workers._size(cutting) for cutting in layout.cutting]
    kept = {"1.safetensors": (12 + 2), "2.safetensors": 40, "3.safetensors": 3}
    for size, (file, held) in zip(sizes, FILES.items(), strict=True):
        assert size == sum(WHOLE[name].nbytes for name in held) + kept[file]
    nothing = replace(layout.cutting[2], entries=())
    assert workers._size(nothing) == 3


@pytest.mark.parametrize(
    ("count", "jobs", "expected"), [(1, 3, None), (2, 1, None), (2, 3, 2), (5, 3, 3), (2, 2, 2)]
)
def test_as_many_processes_are_started_as_have_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, jobs: int, expected: int | None
) -> None:
    started: list[Any] = []

    class Pool:
        def __init__(self, size: int, context: Any) -> None:
            started.append((size, context.get_start_method()))

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def map(self, call: Any, over: Any) -> Any:
            return map(call, over)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(workers, "_cut_into", lambda job: job)
    over: Any = list(range(jobs))
    assert workers._cut(over, count, tmp_path) == over
    assert started == ([] if expected is None else [(expected, "spawn")])


def test_the_first_header_is_on_the_disk_before_it_has_its_name(
    layout: Layout, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = workers.cut_shards(layout, out, [0, 1, 2], 1, Ranks())
    events: list[str] = []
    opened = len(list(Path("/proc/self/fd").iterdir()))
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: events.append(FIRST in names(out)) or real(d))
    workers.finish_first(layout, out, [done[i] for i in range(3)])
    assert events == [True]
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_part_is_told_by_all_that_it_says(layout: Layout, out: Path) -> None:
    cutting = layout.cutting[1]
    assert cutting.part is not None
    cut(cutting, out / cutting.name)
    other = replace(cutting.part, plan=bytes(32))
    metadata = {**cutting.metadata, KEY: encode_part(other)}
    assert finished(out / cutting.name, replace(cutting, part=other, metadata=metadata)) is None
