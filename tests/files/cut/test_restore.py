"""Claims of what is kept of a removal, and of the way back: values, header and digest of every
file, and all that must fit for them to be put together again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import (
    CorruptFile,
    LimitExceeded,
    MalformedFile,
    PlancError,
    ShardMismatch,
    StalePlan,
)
from planc.files.cut.removed import DIGEST, HEADER, OWN, source_header
from planc.files.disk import stream
from planc.files.disk.limits import Limits
from planc.files.formats import load_plan
from planc.files.tensors import reader
from planc.files.tensors.header import Header
from planc.files.tensors.reader import read_header
from tests.files.cut import test_layout as layout
from tests.files.cut.test_layout import FILES, WHOLE

source = layout.source  # a fixture
INDEX = "m.safetensors.index.json"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def kept(source: Path, tmp_path: Path) -> Path:
    (source / "config.json").write_text('{"a": 1}')
    (source / "vocab.txt").write_text("a b")
    planc.apply_files(layout.PLAN, source, tmp_path / "out", keep_removed=tmp_path / "kept")
    return tmp_path / "kept"


def test_what_is_removed_is_kept_with_what_it_was_removed_from(source: Path, kept: Path) -> None:
    files = {*FILES, INDEX, "removed.planc", "config.json"}
    assert {path.name for path in kept.iterdir()} == files
    assert load_plan(kept / "removed.planc") == layout.PLAN
    assert (kept / INDEX).read_bytes() == (source / INDEX).read_bytes()
    assert (kept / "config.json").read_text() == '{"a": 1}'
    for file in FILES:
        header = read_header(kept / file)
        content = (source / file).read_bytes()
        raw = read_header(source / file).raw
        assert base64.b64decode(header.metadata[HEADER]) == raw
        assert header.metadata[DIGEST] == sha256(content).hexdigest()
        assert source_header(header) == (raw, sha256(content).digest())
    found = {n: a.tolist() for file in FILES for n, a in load_file(kept / file).items()}
    assert found == {
        "up": WHOLE["up"][1:3].flatten().tolist(),
        "bias": [1, 2],
        "down": WHOLE["down"][:, 1:3].flatten().tolist(),
    }


def test_every_file_comes_back(source: Path, kept: Path, tmp_path: Path) -> None:
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)
    with pytest.raises(PlancError, match="back exists"):
        planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    (tmp_path / "back" / "more").touch()
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back", overwrite=True)
    assert contents(tmp_path / "back") == contents(source)


def test_several_files_come_back_in_a_directory(source: Path, kept: Path, tmp_path: Path) -> None:
    target = tmp_path / "back.safetensors"
    assert planc.restore_files(tmp_path / "out", kept, target)
    assert contents(target) == contents(source)


def test_values_come_back_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 48)
    out, kept = single(tmp_path)
    assert planc.restore_files(out, kept, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("file", FILES)
def test_one_file_that_was_trained_is_told(kept: Path, tmp_path: Path, file: str) -> None:
    path = tmp_path / "out" / file
    save_file({name: array + 1 for name, array in load_file(path).items()}, path)
    assert not planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    for name in FILES[file]:
        found = load_file(tmp_path / "back" / file)[name]
        cut = layout.PLAN.cuts.get(name)
        stays = np.ones(found.shape, dtype=bool) if cut is None else found != WHOLE[name]
        assert np.array_equal(found, WHOLE[name] + stays)
        assert stays.sum() == (found.size if cut is None else np.prod(cut.shape))


def edited(file: str, **arrays: Any) -> Callable[[Path], None]:
    """Puts other arrays in a file, whose metadata stays."""

    def edit(directory: Path) -> None:
        held = load_file(directory / file) | arrays
        metadata = dict(read_header(directory / file).metadata)
        held = {name: array for name, array in held.items() if array is not None}
        save_file(held, directory / file, metadata)

    return edit


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (edited("kept/1.safetensors", bias=None), "bias"),
        (edited("kept/1.safetensors", bias=np.zeros(3, np.int8)), "bias"),
        (edited("kept/1.safetensors", bias=np.zeros(2, np.uint8)), "bias"),
        (edited("kept/1.safetensors", up=np.zeros((2, 3), np.int16)), "up"),
        (edited("out/1.safetensors", up=np.zeros((2, 3), np.uint16)), "up"),
        (edited("out/3.safetensors", same=np.zeros(3, np.uint8)), "same"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    kept: Path, tmp_path: Path, edit: Callable[[Path], None], name: str
) -> None:
    edit(tmp_path)
    words = f"^{kept}.*: its values of {name} do not belong to this checkpoint; name the directory"
    with pytest.raises(ShardMismatch, match=words):
        planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_tensors_in_other_shards_than_they_were_cut_from_are_refused(
    kept: Path, tmp_path: Path
) -> None:
    """What the headers of the source list decides where each tensor has to be."""
    first, third = (tmp_path / "out" / f"{i}.safetensors" for i in (1, 3))
    held = load_file(first) | load_file(third)
    save_file({"up": held["up"], "same": held["same"]}, first)
    save_file({"bias": held["bias"]}, third)
    index = tmp_path / "out" / INDEX
    table = json.loads(index.read_text())
    table["weight_map"] |= {"same": first.name, "bias": third.name}
    index.write_text(json.dumps(table))
    with pytest.raises(ShardMismatch, match="its values of bias do not belong to this checkpoint"):
        planc.restore_files(tmp_path / "out", kept, tmp_path / "back")


def test_a_checkpoint_that_the_plan_does_not_produce_is_refused(
    source: Path, kept: Path, tmp_path: Path
) -> None:
    with pytest.raises(StalePlan, match=rf"^{source}: is not what the plan in {kept} produces: "):
        planc.restore_files(source, kept, tmp_path / "back")


def single(folder: Path) -> tuple[Path, Path]:
    save_file(WHOLE, folder / "a.safetensors")
    out, kept = folder / "b.safetensors", folder / "kept"
    planc.apply_files(layout.PLAN, folder / "a.safetensors", out, keep_removed=kept)
    return out, kept


def test_one_file_comes_back_under_any_name(tmp_path: Path) -> None:
    out, kept = single(tmp_path)
    (kept / "notes.txt").touch()
    assert planc.restore_files(out, kept, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    save_file(load_file(out) | {"same": np.zeros(3, np.int8)}, out)
    assert not planc.restore_files(out, kept, tmp_path / "c.safetensors")
    (kept / "more.safetensors").write_bytes((kept / "a.safetensors").read_bytes())
    with pytest.raises(ShardMismatch, match=f"^{kept}: holds 2 shards, {out} is one file$"):
        planc.restore_files(out, kept, tmp_path / "c.safetensors")


def test_one_file_comes_back_in_a_directory(tmp_path: Path) -> None:
    out, kept = single(tmp_path)
    out.rename(tmp_path / "a2.safetensors")
    (tmp_path / "small").mkdir()
    (tmp_path / "a2.safetensors").rename(tmp_path / "small" / "a.safetensors")
    (tmp_path / "small" / "readme.txt").write_text("me")
    assert planc.restore_files(tmp_path / "small", kept, tmp_path / "back")
    assert contents(tmp_path / "back") == {
        "a.safetensors": (tmp_path / "a.safetensors").read_bytes(),
        "readme.txt": b"me",
    }


def test_both_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, kept = single(tmp_path)
    opened: list[bool] = []

    class Noted(reader.OpenFile):
        def __init__(self, path: Path, descriptor: int, once: bool) -> None:
            opened.append(once)
            super().__init__(path, descriptor, once)

    monkeypatch.setattr(reader, "OpenFile", Noted)
    planc.restore_files(out, kept, tmp_path / "c.safetensors")
    assert opened == [False, True, True]  # the header to find it, then all of both


def header_with(**metadata: str) -> Header:
    raw = base64.b64encode(b"header").decode()
    return Header((), {HEADER: raw, DIGEST: "ab" * 32, **metadata}, b"")


@pytest.mark.parametrize(
    "header",
    [
        replace(header_with(), metadata={DIGEST: "ab" * 32}),
        replace(header_with(), metadata={HEADER: "aGVhZGVy"}),
        header_with(**{HEADER: "aGVh!ZGVy"}),
        header_with(**{HEADER: "aGV"}),
        header_with(**{DIGEST: "xy" * 32}),
    ],
)
def test_a_file_that_keeps_nothing_is_refused(header: Header) -> None:
    assert source_header(header_with()) == (b"header", bytes.fromhex("ab" * 32))
    words = f"no metadata {HEADER!r} and {DIGEST!r}: not what planc apply --keep-removed wrote"
    with pytest.raises(MalformedFile, match=words):
        source_header(header)


def test_a_header_is_kept_within_the_limits(tmp_path: Path) -> None:
    """It is kept in a header, which is to be read within the limits again."""
    save_file(WHOLE, tmp_path / "a.safetensors", {"note": "x" * 20_000})
    size = 2 * len(base64.b64encode(read_header(tmp_path / "a.safetensors").raw))
    for name, limit in (("b", size), ("c", size - 1)):
        options: Any = {"keep_removed": tmp_path / f"kept-{name}", "limits": Limits(header=limit)}
        target = tmp_path / f"{name}.safetensors"
        if limit == size:
            planc.apply_files(layout.PLAN, tmp_path / "a.safetensors", target, **options)
            continue
        with pytest.raises(LimitExceeded, match=r"a\.safetensors: its header, kept in a header: "):
            planc.apply_files(layout.PLAN, tmp_path / "a.safetensors", target, **options)


def test_what_is_kept_is_replaced_only_on_request(tmp_path: Path) -> None:
    out, kept = single(tmp_path)
    source = tmp_path / "a.safetensors"
    with pytest.raises(PlancError, match="kept exists"):
        planc.apply_files(layout.PLAN, source, out, keep_removed=kept)
    (kept / "more").touch()
    planc.apply_files(layout.PLAN, source, out, keep_removed=kept, overwrite=True)
    assert {path.name for path in kept.iterdir()} == {"removed.planc", "a.safetensors"}


@pytest.mark.parametrize("file", ["up", "down"])
def test_damaged_removed_values_are_damage_and_no_training(
    source: Path, kept: Path, tmp_path: Path, file: str
) -> None:
    path = next(kept / name for name, tensors in FILES.items() if file in tensors)
    content, start = path.read_bytes(), read_header(path).data
    for at in {start, (start + len(content)) // 2, len(content) - 1}:
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(CorruptFile, match=r"the removed values have digest .* it is damaged"):
            planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    path.write_bytes(content)
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back")


def test_another_digest_of_the_source_is_damage(source: Path, kept: Path, tmp_path: Path) -> None:
    for path in kept.glob("*.safetensors"):
        metadata = dict(read_header(path).metadata) | {DIGEST: "ab" * 32}
        save_file(load_file(path), path, metadata)
    with pytest.raises(CorruptFile, match="it is damaged: copy it again"):
        planc.restore_files(tmp_path / "out", kept, tmp_path / "back")


def test_early_files_of_removed_values_have_no_digest(
    source: Path, kept: Path, tmp_path: Path
) -> None:
    for path in kept.glob("*.safetensors"):
        metadata = dict(read_header(path).metadata)
        del metadata[OWN]
        save_file(load_file(path), path, metadata)
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
