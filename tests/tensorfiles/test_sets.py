"""Claims of an index and its shards: both say the same of every tensor, or the one that differs is
named; what is no map of names to files is no index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from planc.codec.limits import Limits
from planc.errors import LimitExceeded, MalformedFile, PlancError, ShardMismatch
from planc.tensorfiles.shards import find_shards, read_index

INDEX = "model.safetensors.index.json"
A, B = "a.safetensors", "b.safetensors"
HELD = {A: ("one", "two"), B: ("three",)}


def written(
    directory: Path, weight_map: Any, held: Mapping[str, tuple[str, ...]] | None = None
) -> Path:
    """Shards that hold one number under each name, and an index."""
    for file, names in (HELD if held is None else held).items():
        save_file({name: np.zeros(1, "f4") for name in names}, directory / file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory / INDEX


def test_an_index_that_says_what_the_headers_say_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, {"three": B, "two": A, "one": A})
    for place in (tmp_path, path):
        found = find_shards(place)
        assert found.index is not None
        assert list(found.index.shards) == ["three", "two", "one"]
        assert {n: shard.name for n, (shard, _) in found.entries().items()} == found.index.shards
        assert [shard.files for shard in found.shards] == [(tmp_path / A,), (tmp_path / B,)]


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    save_file({"one": np.zeros(1, "f4")}, tmp_path / A)
    for place in (tmp_path, tmp_path / A):
        found = find_shards(place)
        assert found.index is None
        assert [(n, shard.path) for n, (shard, _) in found.entries().items()] == [
            ("one", tmp_path / A)
        ]


@pytest.mark.parametrize(
    ("weight_map", "held", "words"),
    [
        ({"one": A, "two": A, "three": A}, HELD, "lists three in a.safetensors, which does not"),
        ({"one": A, "two": A, "three": A, "four": B}, HELD, "lists three in a.s.*, it is in b.s"),
        ({"one": A, "three": B}, HELD, "lists two nowhere, it is in a.safetensors"),
        ({"one": A, "two": B, "three": B}, HELD, "lists two in b.safetensors, it is in a.saf"),
        ({"one": A, "two": A, "three": B, "four": B}, HELD, "lists four in b.saf.* does not hold"),
        ({"one": A, "two": A}, {A: ("one", "two"), B: ("three",)} | {B: ("one",)}, None),
        ({"one": A, "three": B}, {A: ("one",), B: ("three", "one")}, "one is in a.s.* and in b.s"),
        ({"one": A, "three": B}, {A: ("one",)}, "lists b.safetensors, which is not there; get"),
    ],
)
def test_an_index_and_headers_that_differ_are_refused(
    tmp_path: Path, weight_map: Any, held: Mapping[str, tuple[str, ...]], words: str | None
) -> None:
    path = written(tmp_path, weight_map, held)
    if words is None:  # a file beside it that the index does not list is none of its
        assert find_shards(path).entries().keys() == weight_map.keys()
        return
    with pytest.raises(ShardMismatch, match=f"{INDEX}: {words}"):
        find_shards(path)


@pytest.mark.parametrize("weight_map", [None, [], "a", 3, {"one": 3}, {"one": None}, {"one": [A]}])
def test_what_maps_no_names_to_files_is_no_index(tmp_path: Path, weight_map: Any) -> None:
    with pytest.raises(MalformedFile, match="weight_map does not map tensors to files; get it ag"):
        read_index(written(tmp_path, weight_map))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(shards=1), "2 exceeds the limit of 1 shards"),
        (Limits(tensors=2), "3 exceeds the limit of 2 tensors"),
        (Limits(index=20), "exceeds the limit of 20"),
    ],
)
def test_an_index_beyond_the_limits_is_refused(tmp_path: Path, limits: Limits, words: str) -> None:
    path = written(tmp_path, {"one": A, "two": A, "three": B})
    with pytest.raises(LimitExceeded, match=words):
        find_shards(path, limits)


def test_a_directory_of_several_checkpoints_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlancError, match=r"holds neither \*\.safetensors\.index\.json nor \*\.saf"):
        find_shards(tmp_path)
    for file in (A, B):
        save_file({"one": np.zeros(1, "f4")}, tmp_path / file)
    with pytest.raises(PlancError, match=f"holds 2 files of kind .*, {A} and {B} among them: name"):
        find_shards(tmp_path)
