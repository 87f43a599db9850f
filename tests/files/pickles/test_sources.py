"""Claims of where weights come from: a pickle is found under whichever name it has, is read only on
trust, and never where there is a safetensors file; two that may be meant are named.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from planc.errors import FileError, PlancError
from planc.files.disk.limits import DEFAULT
from planc.files.pickles.sources import find_source
from tests.support.strategies import example_plan

PLAN = example_plan()
INDEX = "pytorch_model.bin.index.json"


def filled(directory: Path, names: list[str]) -> Path:
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(b"")
    return directory


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["a.bin"], "a.bin"),
        (["a.pt", "config.json"], "a.pt"),
        (["a.pth", ".b.pth"], "a.pth"),
        (["a.ckpt"], "a.ckpt"),
        (["1.bin", "2.bin", INDEX], INDEX),
        (["a.pt", ".hidden.bin.index.json"], "a.pt"),
        (["a.pt", ".hidden.safetensors"], "a.pt"),
        ([".metadata", "__0_0.distcp"], ".metadata"),
        ([".metadata", "a.pt", INDEX], ".metadata"),
    ],
)
def test_a_pickle_is_found_and_not_read_without_trust(
    tmp_path: Path, names: list[str], meant: str
) -> None:
    directory = filled(tmp_path / "in", names)
    for path in (directory, directory / meant):
        if path.name != ".metadata":
            with pytest.raises(
                FileError, match=r"is a pickle.*code.*pass --trust-pickle"
            ) as caught:
                find_source(path, PLAN.tensors, False, DEFAULT)
            assert str(caught.value).startswith(f"{directory / meant}: ")


@pytest.mark.parametrize(
    ("names", "module", "reader", "given"),
    [
        ([".metadata"], "native", "find_native", ""),
        (["a.pt"], "pickled", "find_pickled", "a.pt"),
        ([INDEX, "a.bin"], "pickled", "find_pickled", INDEX),
    ],
)
def test_a_pickle_that_is_trusted_is_read_by_who_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    module: str,
    reader: str,
    given: str,
) -> None:
    directory = filled(tmp_path / "in", names)
    fake: Any = SimpleNamespace(**{reader: lambda *arguments: arguments})
    monkeypatch.setitem(sys.modules, f"planc.files.pickles.{module}", fake)
    expected = (directory / given, PLAN.tensors, DEFAULT)
    assert tuple(find_source(directory, PLAN.tensors, True, DEFAULT)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("trust", [False, True])
def test_safetensors_are_read_sooner_than_pickles(tmp_path: Path, trust: bool) -> None:
    directory = filled(tmp_path / "in", ["a.bin", "b.bin", ".metadata", INDEX])
    save_file({"w": np.zeros(3, "f4")}, directory / "a.safetensors")
    for path in (directory, directory / "a.safetensors"):
        found = find_source(path, PLAN.tensors, trust, DEFAULT)
        assert [shard.path for shard in found.shards] == [directory / "a.safetensors"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["c.pt", "a.bin", "b.bin"], "holds 3 files that may be meant, a.bin and b.bin among them"),
        (["a.bin.index.json", INDEX], f"holds 2 files that .*, a.bin.index.json and {INDEX} among"),
    ],
)
def test_two_pickles_that_may_be_meant_are_named(
    tmp_path: Path, names: list[str], words: str
) -> None:
    directory = filled(tmp_path / "in", names)
    with pytest.raises(PlancError, match=f"{directory} {words}"):
        find_source(directory, PLAN.tensors, True, DEFAULT)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    directory = filled(tmp_path / "in", ["config.json", ".a.bin"])
    with pytest.raises(PlancError, match=r"in holds neither \*\.safetensors\.index\.json nor"):
        find_source(directory, PLAN.tensors, True, DEFAULT)
