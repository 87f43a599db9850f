"""Claims of an index and its shards: both say the same of every tensor, or the one that differs is
named; what is no map of names to files is no index.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from planc.errors import LimitExceeded, MalformedFile, PlancError, ShardMismatch, UnsafePath
from planc.files.disk.limits import Limits
from planc.files.tensors import reader
from planc.files.tensors.distributed import KEY
from planc.files.tensors.shards import (
    EXTRA_SUFFIX,
    SUFFIX,
    check_apart,
    check_names,
    find_shards,
    open_shard,
    read_index,
)

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


@pytest.mark.parametrize(
    "weight_map",
    [None, [], "a", 3, {"one": 3}, {"one": None}, {"one": [A]}, {"one": A, "two": 3}],
)
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


@pytest.mark.parametrize(
    "name",
    [
        "a.safetensors",
        "A-b_c.d e.safetensors",
        "größe.safetensors",
        "model-00001-of-00002.safetensors",
        "consul.safetensors",
        "com.safetensors",
        "com10.safetensors",
        "x" * 243 + ".safetensors",
        "a.planc-extra",
    ],
)
def test_plain_names_are_let_through(name: str) -> None:
    check_names([name, "b.safetensors", name], "here", (SUFFIX, EXTRA_SUFFIX))


@pytest.mark.parametrize(
    "name",
    [
        "a/b.safetensors",
        "a\\b.safetensors",
        "c:a.safetensors",
        ".a.safetensors",
        "a\0.safetensors",
        "a\x1f.safetensors",
        "a\x7f.safetensors",
        "a\n.safetensors",
        "a*.safetensors",
        "a?.safetensors",
        'a".safetensors',
        "a<.safetensors",
        "a>.safetensors",
        "a|.safetensors",
        "x" * 244 + ".safetensors",
        "ß" * 122 + ".safetensors",  # 256 bytes
        "a.txt",
        "a.safetensors.txt",
        "con.safetensors",
        "PRN.x.safetensors",
        "aux.safetensors",
        "nul.safetensors",
        "com1.safetensors",
        "lpt9.safetensors",
    ],
)
def test_a_name_that_some_system_reads_otherwise_is_refused(name: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        check_names(["b.safetensors", name], "here", (SUFFIX, EXTRA_SUFFIX))
    assert str(caught.value) == (
        f"here: {name[:80]!r} is not the plain name of a .safetensors file beside it"
    )


def test_names_that_differ_in_case_only_are_refused() -> None:
    check_names(["a.safetensors", "a.safetensors"], "here")
    with pytest.raises(UnsafePath, match=r"here: 'A\.s.*' and 'a\.s.*' are one file where case"):
        check_names(["a.safetensors", "b.safetensors", "A.safetensors"], "here")


@pytest.mark.parametrize("name", ["../c.safetensors", "sub/c.safetensors", "c.bin"])
def test_an_index_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path = written(tmp_path / "in", {"one": A, "two": A, "three": B, "four": name})
    save_file({"four": np.zeros(1, "f4")}, tmp_path / "in" / name)
    with pytest.raises(UnsafePath, match=f"^{path}: '{name}' is not the plain name of"):
        find_shards(path)


def test_what_else_an_index_says_is_kept(tmp_path: Path) -> None:
    path = tmp_path / INDEX
    rest = {"metadata": {"total_size": 3.5, "shift": -1}, "version": None}
    path.write_text(json.dumps({"weight_map": {"one": A}} | rest))
    found = read_index(path)
    assert (found.name, found.shards, found.rest) == (INDEX, {"one": A}, rest)


def test_hidden_files_are_no_checkpoint(tmp_path: Path) -> None:
    """Some systems leave their own files beside each, as ``._NAME``."""
    save_file({"one": np.zeros(1, "f4")}, tmp_path / A)
    for name in ("._a.safetensors", f".{INDEX}", ".b.safetensors"):
        (tmp_path / name).write_bytes(b"not one")
    assert [shard.name for shard in find_shards(tmp_path).shards] == [A]


def test_hidden_files_are_no_pieces(tmp_path: Path) -> None:
    offsets = '{"one": {"saved_offsets": [0]}}'
    save_file({"one": np.zeros(1, "f4")}, tmp_path / A, {KEY: offsets})
    (tmp_path / "._a.safetensors").write_bytes(b"not one")
    (tmp_path / "config.json").write_text("{}")
    [shard] = find_shards(tmp_path).shards
    assert shard.joined is not None
    assert (shard.name, shard.files) == ("model.safetensors", (tmp_path / A,))


def test_an_index_is_read_sooner_than_pieces(tmp_path: Path) -> None:
    path = written(tmp_path, {"one": A, "two": A, "three": B})
    for file, names in HELD.items():
        save_file({name: np.zeros(1, "f4") for name in names}, tmp_path / file, {KEY: "{}"})
    (tmp_path / "config.json").write_text("{}")
    found = find_shards(tmp_path)
    assert found.index is not None
    assert found.index.name == path.name
    assert all(shard.joined is None for shard in found.shards)


def test_a_result_in_the_place_of_what_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    found = find_shards(written(tmp_path / "in", {"one": A, "two": A, "three": B}))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "other").mkdir()
    for free in ("out", "other", "in/c.safetensors"):
        check_apart(found, tmp_path / free)
    for taken in ("in", "link", f"in/{A}", f"link/{B}"):
        with pytest.raises(PlancError, match=f"{taken} is what is read: name another place for th"):
            check_apart(found, tmp_path / taken)


def test_a_shard_is_opened_within_the_limits_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_LONG", 0)
    monkeypatch.setattr(reader, "_is_cached", lambda *_: False)
    forgotten: list[Any] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *advice: forgotten.append(advice))
    save_file({"one": np.arange(3, dtype="f4")}, tmp_path / A)
    [shard] = find_shards(tmp_path / A).shards
    with open_shard(shard, Limits(tensors=1)) as file:
        [entry] = file.header.entries
        assert [chunk.view("f4").tolist() for chunk in file.chunks(entry, 99)] == [[0, 1, 2]]
    assert len(forgotten) == 1
    with pytest.raises(LimitExceeded), open_shard(shard, Limits(tensors=0)):
        pass


def test_a_directory_of_several_checkpoints_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlancError, match=r"holds neither \*\.safetensors\.index\.json nor \*\.saf"):
        find_shards(tmp_path)
    for file in (A, B):
        save_file({"one": np.zeros(1, "f4")}, tmp_path / file)
    with pytest.raises(PlancError, match=f"holds 2 files of kind .*, {A} and {B} among them: name"):
        find_shards(tmp_path)
