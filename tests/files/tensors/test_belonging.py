"""The files of a checkpoint belong together, or the one that does not is named: from headers alone.

The files are written by hand, so that each may say what no writer would.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from planc.errors import (
    LimitExceeded,
    MalformedFile,
    PlancError,
    ShardMismatch,
    TrailingData,
    TruncatedFile,
    UnsafePath,
)
from planc.files.disk.limits import Limits
from planc.files.formats import encode_plan
from planc.files.formats.checkpoint import (
    KEY,
    Checkpoint,
    Part,
    StoredShard,
    StoredTensor,
    encode_checkpoint,
    encode_part,
)
from planc.files.tensors.header import Entry, Header, place, write_header
from planc.files.tensors.opened import inspect, open_checkpoint
from planc.files.tensors.reader import read_header
from tests.support.strategies import example_plan

PLAN = example_plan()
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FORMAT = {"format": "pt"}
A, B, C = b"aaaa", b"bb", b"cccc"


def stored(name: str, dtype: str, shape: tuple[int, ...], data: bytes, shard: int) -> StoredTensor:
    return StoredTensor((name,), dtype, shape, sha256(data).digest(), "state", shard)


@dataclass
class Files:
    """Two files and what they say; each field may be changed before they are written."""

    folder: Path
    first: tuple[Entry, ...] = place([("a", "U8", (4,))])
    second: tuple[Entry, ...] = place([("b", "U8", (2,)), ("c", "F32", ())])
    tensors: tuple[StoredTensor, ...] = (
        stored("a", "U8", (4,), A, 0),
        stored("b", "U8", (2,), B, 1),
        stored("c", "F32", (), C, 1),
    )
    part: dict[str, str] = field(default_factory=dict)
    names: tuple[str, str] = (FIRST, SECOND)
    data: tuple[bytes, bytes] = (A, B + C)
    more: dict[str, str] = field(
        default_factory=dict
    )  # metadata of the first that no digest covers
    sizes: tuple[int, int] = (0, 0)  # added to what is said
    changed: bytes = b""  # spaces in the first header

    def write(self) -> Path:
        digests = tuple((t.names[0], t.digest) for t in self.tensors if t.shard == 1)
        text = encode_part(Part(sha256(encode_plan(PLAN)).digest(), b"", digests))
        metadata = {**FORMAT, KEY: text, **self.part}
        raw = write_header(self.second, metadata)
        (self.folder / self.names[1]).write_bytes(raw + self.data[1])
        second = StoredShard(
            self.names[1],
            Header(self.second, metadata, raw).size + self.sizes[1],
            sha256(raw).digest(),
        )
        bare = sha256(write_header(self.first, FORMAT)).digest()
        first, raw = StoredShard(self.names[0], 0, bare), b""
        for _ in range(3):
            shards = (replace(first, size=first.size + self.sizes[0]), second)
            record = encode_checkpoint(Checkpoint(PLAN, (), self.tensors, shards))
            raw = write_header(self.first, {**FORMAT, KEY: record, **self.more})
            first = replace(first, size=len(raw) + len(self.data[0]))
        if self.changed:
            raw = (len(raw) - 8 + len(self.changed)).to_bytes(8, "little") + raw[8:] + self.changed
        path = self.folder / self.names[0]
        path.write_bytes(raw + self.data[0])
        return path


def test_files_that_belong_together_are_opened(tmp_path: Path) -> None:
    files = Files(tmp_path)
    opened = open_checkpoint(files.write())
    assert opened.paths == (tmp_path / FIRST, tmp_path / SECOND)
    assert opened.places == {entry.name: entry for entry in (*files.first, *files.second)}
    assert opened.checkpoint == inspect(tmp_path / FIRST)
    assert opened.checkpoint.tensors == files.tensors


def edited(**changes: object) -> Callable[[Files], Files]:
    return lambda files: replace(files, **changes)  # type: ignore[arg-type]


def part_of(*tensors: tuple[str, bytes]) -> dict[str, str]:
    return {KEY: encode_part(Part(bytes(32), b"", tensors))}


D = [t.digest for t in Files(Path()).tensors]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited(sizes=(1, 0)), f"{FIRST}: has "),
        (edited(sizes=(0, -1)), f"{SECOND}: has "),
        (edited(changed=b" " * 64), f"{FIRST}: its header was changed since planc wrote it"),
        (edited(more={"note": "x"}), f"{FIRST}: its header's digest is "),
        (
            edited(tensors=Files(Path()).tensors[:2]),
            f"{SECOND}: c is ('F32', ()), the record lists None; the header was changed",
        ),
        (
            edited(tensors=(*Files(Path()).tensors, stored("d", "U8", (1,), b"d", 1))),
            f"{SECOND}: d is None, the record lists ('U8', (1,)); the header was changed",
        ),
        (
            edited(tensors=(stored("a", "I8", (4,), A, 0), *Files(Path()).tensors[1:])),
            f"{FIRST}: a is ('U8', (4,)), the record lists ('I8', (4,)); the header was changed",
        ),
        (
            edited(tensors=(stored("a", "U8", (2, 2), A, 0), *Files(Path()).tensors[1:])),
            f"{FIRST}: a is ('U8', (4,)), the record lists ('U8', (2, 2)); the header was changed",
        ),
        (
            edited(part=part_of(("b", D[1]), ("c", D[1]))),
            f"{SECOND}: the digest of c is another one than in the record; they are of different",
        ),
        (edited(part=part_of(("b", D[1]))), f"{SECOND}: the digest of c is another one than in"),
    ],
)
def test_a_file_that_does_not_belong_is_named(
    edit: Callable[[Files], Files], words: str, tmp_path: Path
) -> None:
    path = edit(Files(tmp_path)).write()
    with pytest.raises(ShardMismatch) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{tmp_path}/{words}")


def test_a_header_of_another_checkpoint_is_told_by_its_digest(tmp_path: Path) -> None:
    path = Files(tmp_path).write()
    second = (tmp_path / SECOND).read_bytes()
    tensors = (*Files(Path()).tensors[:2], stored("c", "F32", (), b"CCCC", 1))
    Files(tmp_path, tensors=tensors).write()
    (tmp_path / SECOND).write_bytes(second)
    words = r"its header's digest is [0-9a-f]{16}\.\.\., the checkpoint lists [0-9a-f]{16}\.\.\.;"
    with pytest.raises(ShardMismatch, match=f"{SECOND}: {words}"):
        open_checkpoint(path)


def test_a_tied_tensor_is_known_by_its_first_name(tmp_path: Path) -> None:
    a, b, c = Files(Path()).tensors
    tensors = (replace(a, names=("a", "a.tied")), b, replace(c, names=("c", "c.tied")))
    opened = open_checkpoint(Files(tmp_path, tensors=tensors).write())
    assert list(opened.places) == ["a", "b", "c"]
    path = Files(tmp_path, tensors=tensors, part=part_of(("b", D[1]), ("c", D[1]))).write()
    with pytest.raises(ShardMismatch, match="the digest of c is another one"):
        open_checkpoint(path)


def test_a_part_that_says_nothing_is_refused_with_its_file(tmp_path: Path) -> None:
    path = Files(tmp_path, part={KEY: "????"}).write()
    with pytest.raises(MalformedFile, match=f"^{tmp_path}/{SECOND}: metadata 'planc': "):
        open_checkpoint(path)
    assert inspect(path).tensors  # of which only the first header is read


def test_a_missing_a_short_and_a_long_file_are_named(tmp_path: Path) -> None:
    path = Files(tmp_path).write()
    content = (tmp_path / SECOND).read_bytes()
    for other, kind in ((content[:-1], TruncatedFile), (content + b"x", TrailingData)):
        (tmp_path / SECOND).write_bytes(other)
        with pytest.raises(kind, match=SECOND):
            open_checkpoint(path)
    (tmp_path / SECOND).unlink()
    with pytest.raises(ShardMismatch, match=f"{SECOND}: this file of the checkpoint is missing"):
        open_checkpoint(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["../x.safetensors", ".x.safetensors", "x.txt", "aux.safetensors"])
def test_a_shard_elsewhere_is_never_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = Files(tmp_path / "in", names=(FIRST, name)).write()
    for read in (open_checkpoint, inspect):
        with pytest.raises(UnsafePath, match=f"^{path}: shards: .* is not the plain name of a"):
            read(path)


def test_twins_in_all_but_case_are_refused(tmp_path: Path) -> None:
    path = Files(tmp_path, names=("a.safetensors", "A.safetensors")).write()
    with pytest.raises(UnsafePath, match="are one file where case is ignored"):
        open_checkpoint(path)


def test_an_index_leads_to_the_first_file(tmp_path: Path) -> None:
    Files(tmp_path).write()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"c": SECOND, "a": FIRST, "b": SECOND}}))
    for path in (tmp_path, index):
        assert open_checkpoint(path).paths == (tmp_path / FIRST, tmp_path / SECOND)
        assert inspect(path) == inspect(tmp_path / FIRST)
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(ShardMismatch, match="lists no files; get the index again"):
        inspect(index)
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(
        UnsafePath, match=r"index\.json: '\.\./x\.safetensors' is not the plain name"
    ):
        inspect(index)
    index.unlink()
    with pytest.raises(PlancError, match=r"holds 2 files of kind \*\.safetensors"):
        inspect(tmp_path)


def test_limits_hold_for_every_file(tmp_path: Path) -> None:
    path = Files(tmp_path).write()
    first = len(path.read_bytes()) - 4 - 8
    assert open_checkpoint(path, limits=Limits(header=first)).places
    for read in (open_checkpoint, inspect):
        with pytest.raises(LimitExceeded, match=f"header={first}"):
            read(path, limits=Limits(header=first - 1))
        with pytest.raises(LimitExceeded, match="tensors=3"):
            read(path, limits=Limits(tensors=2))
    record = len(read_header(path).metadata[KEY])
    many = part_of(("b", D[1]), ("c", D[2]), *((f"d{i}", D[0]) for i in range(record // 32)))
    assert open_checkpoint(Files(tmp_path, part=many).write()).places
    with pytest.raises(LimitExceeded, match=f"{SECOND}: .* exceeds the limit of {record} record"):
        open_checkpoint(path, limits=Limits(record=record))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": FIRST}}))
    for read in (open_checkpoint, inspect):
        with pytest.raises(LimitExceeded):
            read(index, limits=Limits(index=10))
