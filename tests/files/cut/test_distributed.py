"""Claims of checkpoints in the pieces that ranks had: cut as if they were whole; a piece that is
missing, doubled or of elsewhere is no reason to write zeros.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import MalformedFile, PlancError, ShardMismatch, StalePlan
from planc.files.tensors.distributed import KEY, find_pieces
from planc.files.tensors.pieces import open_joined
from planc.files.tensors.shards import find_shards
from tests.files.cut.test_files import PLAN, one_by_one, state_of

Arrays = dict[str, NDArray[Any]]


def pieces_of(whole: Arrays, directory: Path, splits: dict[str, tuple[int, ...]]) -> None:
    """Files as torch.distributed.checkpoint writes them: each tensor split evenly per dimension."""
    directory.mkdir()
    files: dict[int, tuple[Arrays, dict[str, Any]]] = {}
    for name, array in whole.items():
        parts = splits.get(name, (1,) * array.ndim)
        for rank, at in enumerate(product(*map(range, parts))):
            sizes = [-(-n // p) for n, p in zip(array.shape, parts, strict=True)]
            offsets = [i * size for i, size in zip(at, sizes, strict=True)]
            box = tuple(slice(o, o + size) for o, size in zip(offsets, sizes, strict=True))
            tensors, info = files.setdefault(rank, ({}, {}))
            tensors[name] = np.ascontiguousarray(array[box])
            info[name] = {"saved_offsets": offsets}
    for rank, (tensors, info) in files.items():
        path = directory / f"shard-{rank:05d}-model-00001-of-00001.safetensors"
        save_file(tensors, path, {"format": "pt", KEY: json.dumps(info), "DCP_VERSION": "1.0"})


UP, DOWN = "layers.0.up.weight", "layers.0.down.weight"
SPLITS = [
    {UP: (2, 1), DOWN: (1, 4)},
    {UP: (4, 2), DOWN: (2, 2)},
    {UP: (3, 1), DOWN: (1, 3)},
    {},
]


@pytest.mark.parametrize("splits", SPLITS)
def test_pieces_are_cut_as_the_whole(tmp_path: Path, splits: dict[str, tuple[int, ...]]) -> None:
    whole = state_of(PLAN, "float16")
    pieces_of(whole, tmp_path / "in", splits)
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", keep_removed=tmp_path / "kept")
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), one_by_one(PLAN, whole)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert planc.inspect(tmp_path / "out").plan == PLAN
    assert planc.restore_files(tmp_path / "out", tmp_path / "kept", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(np.array_equal(back[name], whole[name]) for name in whole)


def test_any_range_of_a_joined_tensor_is_that_of_the_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    array = np.arange(7 * 6 * 5, dtype=np.int32).reshape(7, 6, 5)
    for i, parts in enumerate([(7, 1, 1), (2, 3, 1), (1, 2, 5), (3, 2, 2), (1, 1, 1)]):
        directory = tmp_path / str(i)
        pieces_of({"w": array}, directory, {"w": parts})
        with open_joined(find_pieces(sorted(directory.iterdir()))) as file:
            [entry] = file.header.entries
            for _ in range(200):
                start, stop = sorted(chance.choices(range(array.nbytes + 1), k=2))
                into = np.empty(stop - start, dtype=np.uint8)
                file.read_into(entry, start, into)
                assert bytes(into) == array.tobytes()[start:stop]


def info(number: int, change: Callable[[dict[str, Any]], Any]) -> Callable[[list[Path]], None]:
    def edit(files: list[Path]) -> None:
        from planc.files.tensors.reader import read_header

        metadata = dict(read_header(files[number]).metadata)
        metadata[KEY] = json.dumps(change(json.loads(metadata[KEY])))
        save_file(load_file(files[number]), files[number], metadata)

    return edit


def moved(by: int) -> Callable[[dict[str, Any]], Any]:
    return lambda table: table | {UP: {"saved_offsets": [table[UP]["saved_offsets"][0] + by, 0]}}


WRONG: list[tuple[Callable[[list[Path]], None], type[PlancError]]] = [
    (lambda files: files[1].unlink(), ShardMismatch),
    (lambda files: files[3].unlink(), StalePlan),
    (lambda files: files[0].unlink(), ShardMismatch),
    (lambda files: files[1].write_bytes(files[2].read_bytes()) and None, ShardMismatch),
    (info(1, moved(1)), ShardMismatch),
    (info(1, moved(-1)), ShardMismatch),
    (info(3, moved(4)), ShardMismatch),
    (info(1, lambda table: {}), MalformedFile),
    (info(1, lambda table: [1]), MalformedFile),
    (info(1, lambda table: table | {UP: {"saved_offsets": [4]}}), MalformedFile),
    (info(1, lambda table: table | {UP: {"saved_offsets": [4, -1]}}), MalformedFile),
    (info(1, lambda table: table | {UP: {"saved_offsets": [True, 0]}}), MalformedFile),
    (lambda files: save_file({"x": np.zeros(2)}, files[1]), PlancError),
]


@pytest.mark.parametrize(("edit", "kind"), WRONG)
def test_pieces_that_do_not_make_a_whole_are_refused(
    tmp_path: Path, edit: Callable[[list[Path]], None], kind: type[PlancError]
) -> None:
    whole = state_of(PLAN, "float16")
    pieces_of(whole, tmp_path / "in", {UP: (4, 1)})
    edit(sorted((tmp_path / "in").iterdir()))
    with pytest.raises(kind):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    whole = {name: torch.from_numpy(array) for name, array in state_of(PLAN, "float32").items()}
    writer = dcp.HuggingFaceStorageWriter(str(tmp_path / "in"), save_distributed=True)
    dcp.save(whole, storage_writer=writer, no_dist=True)
    shards = find_shards(tmp_path / "in").shards
    assert math.prod(shards[0].header.entries[0].shape) > 0
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    [path] = (tmp_path / "out").glob("*.safetensors")
    found, expected = load_file(path), planc.apply(PLAN, whole)
    assert all(np.array_equal(found[name], expected[name].numpy()) for name in expected)
