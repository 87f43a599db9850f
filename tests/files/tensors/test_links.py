"""A link beside a checkpoint is followed within its directory and into the blobs of its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import planc
from planc.errors import UnsafePath
from planc.files.tensors.links import inside
from tests.files.cut.test_files import PLAN, contents, sharded


def linked(path: Path, place: Path) -> None:
    """Moves a file and leaves a link in its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    path.symlink_to(place)


def cache(tmp_path: Path, below: str = "") -> Path:
    """A snapshot, all of whose files are links to blobs."""
    root = tmp_path / "models--a--b"
    snapshot = root / "snapshots" / "abc" / below
    snapshot.parent.mkdir(parents=True)
    sharded(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        if path.is_file():
            linked(path, root / "blobs" / f"{number:040x}")
    return snapshot


@pytest.mark.parametrize("below", ["", "unet"])
@pytest.mark.parametrize("by", ["directory", "index", "link to the directory"])
def test_the_links_of_a_cache_are_followed(below: str, by: str, tmp_path: Path) -> None:
    source = cache(tmp_path, below)
    if by == "index":
        source = next(source.glob("*.index.json"))
    if by == "link to the directory":
        (tmp_path / "link").symlink_to(source)
        source = tmp_path / "link"
    sharded(tmp_path / "plain")
    for place in (source, tmp_path / "plain"):
        planc.apply_files(PLAN, place, tmp_path / f"out of {place.name}")
    found = contents(tmp_path / f"out of {source.name}")
    assert found == contents(tmp_path / "out of plain")


def test_links_within_a_directory_are_followed(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    for path in list((tmp_path / "in").glob("*.safetensors")):
        linked(path, tmp_path / "in" / "store" / path.name)
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    assert planc.inspect(tmp_path / "out").plan == PLAN


OUTSIDE: dict[str, Callable[[Path], Path]] = {
    "the parent": lambda base: base / "elsewhere",
    "a sibling of a like name": lambda base: base / "in-other" / "file",
    "blobs where there is no cache": lambda base: base / "blobs" / "file",
}


@pytest.mark.parametrize("name", ["*-00002-*.safetensors", "*.index.json", "config.json", "tok*"])
@pytest.mark.parametrize("place", OUTSIDE)
def test_links_that_lead_elsewhere_are_refused(name: str, place: str, tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    (tmp_path / "in" / "config.json").write_text("{}")
    (tmp_path / "in" / "tokenizer.txt").write_text("a b")
    path = next((tmp_path / "in").glob(name))
    linked(path, OUTSIDE[place](tmp_path))
    with pytest.raises(UnsafePath, match=f"{path.name}: a link to .* neither in this directory"):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_into_another_cache_are_refused(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    shard = next(snapshot.glob("*.safetensors"))
    blob = shard.resolve()
    shard.unlink()
    linked(blob, tmp_path / "models--c--d" / "blobs" / blob.name)
    shard.symlink_to(blob)  # a link to a link
    with pytest.raises(UnsafePath, match="neither in this directory nor in the blobs"):
        planc.apply_files(PLAN, snapshot, tmp_path / "out")


def test_shards_and_removed_values_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", keep_removed=tmp_path / "kept")
    shard = sorted((tmp_path / "out").glob("*.safetensors"))[1]
    linked(tmp_path / "kept" / shard.name, tmp_path / "away")
    with pytest.raises(UnsafePath, match=r"kept.*a link to"):
        planc.restore_files(tmp_path / "out", tmp_path / "kept", tmp_path / "back")
    linked(shard, tmp_path / "far")
    for read in (planc.load_optimizer, planc.StoredWeights):
        with pytest.raises(UnsafePath, match=r"out.*a link to"):
            read(tmp_path / "out")


def test_what_the_caller_names_is_read_wherever_it_leads(tmp_path: Path) -> None:
    planc.save_plan(PLAN, tmp_path / "store.planc")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to(tmp_path / "store.planc")
    assert planc.load_plan(tmp_path / "deep" / "link") == PLAN


def test_a_link_to_itself_is_refused_where_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        inside(tmp_path / "a").read_bytes()
