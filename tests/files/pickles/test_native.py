"""Claims of the form that torch.distributed.checkpoint writes by itself, one wrong word at a time.

What ranks write is in tests/files/cut/test_native.py. Here such files are written by hand in one
process, so that each may say what no writer would.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from planc.errors import LimitExceeded, MalformedFile, PlancError, ShardMismatch, UnsafePath
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.pickles.native import find_native
from planc.files.tensors.shards import open_shard
from tests.files.disk.test_directories import open_files
from tests.support.strategies import example_plan

PLAN = example_plan()
STATE = {
    spec.names[0]: torch.randn(spec.shape, generator=torch.Generator().manual_seed(i))
    for i, spec in enumerate(PLAN.tensors)
}
FILES = ("__0_0.distcp", "__1_0.distcp")
A = "a.weight"


def chunks(tensor: torch.Tensor) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """Two pieces of a tensor, cut along its first dimension; a scalar is one."""
    if tensor.ndim == 0:
        return [((), tensor)]
    rest = (0,) * (tensor.ndim - 1)
    return [((0, *rest), tensor[:2]), ((2, *rest), tensor[2:])]


def written(directory: Path, outer: tuple[str, ...] = ()) -> Path:
    """The tensors of STATE in two files, and a number that is none of the model's."""
    directory.mkdir()
    contents = [io.BytesIO(), io.BytesIO()]
    held: dict[str, Any] = {"step": BytesStorageMetadata()}
    paths: dict[str, tuple[str, ...]] = {"step": ("trainer", "step")}
    stored = {MetadataIndex("step"): _StorageInfo(FILES[0], 0, 0)}
    for name, tensor in STATE.items():
        key, parts = ".".join((*outer, name)), chunks(tensor)
        paths[key] = (*outer, name)
        for i, (offsets, part) in enumerate(parts):
            start = contents[i].tell()
            torch.save(part.clone(), contents[i])
            contents[i].seek(0, io.SEEK_END)
            place = _StorageInfo(FILES[i], start, contents[i].tell() - start)
            stored[MetadataIndex(key, offsets)] = place
        held[key] = TensorStorageMetadata(
            TensorProperties.create_from_tensor(tensor),
            tensor.shape,
            [ChunkStorageMetadata(torch.Size(at), part.shape) for at, part in parts],
        )
    for file, content in zip(FILES, contents, strict=True):
        (directory / file).write_bytes(content.getvalue())
    saved_at: Any = Path("somewhere") if outer else "somewhere"
    metadata = Metadata(held, paths, stored, StorageMeta(saved_at))
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    return directory


@pytest.mark.parametrize("outer", [(), ("model",), ("trainer", "model")])
def test_pieces_by_hand_are_the_tensors(tmp_path: Path, outer: tuple[str, ...]) -> None:
    directory = written(tmp_path / "in", outer)
    before = open_files()
    found = find_native(directory, PLAN.tensors, DEFAULT)
    assert open_files() == before
    assert found.outside == (("trainer.step",) if outer[:1] == ("trainer",) else ("trainer",))
    [shard] = found.shards
    assert {path.name for path in shard.files} == set(FILES)
    with open_shard(shard) as file:
        for name, (_, entry) in found.entries().items():
            content = b"".join(chunk.tobytes() for chunk in file.chunks(entry, 7))
            assert content == STATE[name].numpy().tobytes()
    assert found.entries().keys() == STATE.keys()


def places(metadata: Metadata) -> list[Any]:
    """Where the two pieces of the first tensor lie."""
    return [place for index, place in metadata.storage_data.items() if index.fqn == A]


def held(metadata: Metadata) -> Any:
    return metadata.state_dict_metadata[A]


def edited(change: Callable[[Metadata], Any]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        metadata = pickle.loads((directory / ".metadata").read_bytes())
        change(metadata)
        (directory / ".metadata").write_bytes(pickle.dumps(metadata))

    return edit


def piece(metadata: Metadata, field: str, sizes: tuple[int, ...]) -> None:
    setattr(held(metadata).chunks[0], field, torch.Size(sizes))


def of_dtype(metadata: Metadata, dtype: Any) -> None:
    held(metadata).properties.dtype = dtype


def other_content(value: Any) -> Callable[[Metadata], None]:
    """The first piece of the first tensor lies in a file that holds ``value``."""

    def change(metadata: Metadata) -> None:
        content = io.BytesIO()
        torch.save(value, content)
        Path("in", "other.distcp").write_bytes(content.getvalue())
        places(metadata)[0].__init__("other.distcp", 0, len(content.getvalue()))

    return change


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


NOT_WRITTEN = r"\.metadata: not what torch\.distributed\.checkpoint writes: "
OTHERS = "they are of different checkpoints"
WRONG: list[tuple[Callable[[Path], Any], type[Exception], str]] = [
    (edited(lambda m: places(m)[0].__init__("x.distcp", 0, 9)), ShardMismatch, "x.* is missing"),
    (edited(lambda m: places(m)[0].__init__("x.bin", 0, 9)), UnsafePath, r"a \.distcp file"),
    (edited(lambda m: places(m)[0].__init__("../x.distcp", 0, 9)), UnsafePath, "plain name"),
    (edited(lambda m: places(m)[0].__init__(FILES[0], 0, 9, ["zstd"])), MalformedFile, "zstd; s"),
    (edited(lambda m: places(m)[0].__init__(FILES[0], 5, 90)), MalformedFile, "not tensors in"),
    (edited(lambda m: places(m)[0].__init__(FILES[0], -5, 90)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: places(m)[0].__init__(FILES[0], 0, -1)), MalformedFile, "a negative size"),
    (edited(lambda m: places(m)[0].__init__(FILES[0], 1 << 70, 9)), MalformedFile, "not tensors"),
    (edited(lambda m: places(m)[0].__init__(FILES[0], "x", 9)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: places(m)[0].__init__(FILES[0], 1e999, 9)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: places(m)[0].__init__(3, 0, 9)), MalformedFile, "3 is no name"),
    (edited(other_content(3)), ShardMismatch, f"byte 0: has no tensor where .* {OTHERS}"),
    (edited(other_content([STATE[A][:2]])), ShardMismatch, "has no tensor where"),
    (edited(other_content({"a": STATE[A], "b": 3})), ShardMismatch, "has no tensor where"),
    (edited(other_content(STATE[A])), ShardMismatch, r"has F32\(6, 1\) where .* F32\(2, 1\) of"),
    (edited(other_content(STATE[A][:2].clone().half())), ShardMismatch, r"has F16\(2, 1\) where"),
    (edited(lambda m: held(m).chunks.pop()), ShardMismatch, "hold 2 of the 6 values"),
    (edited(lambda m: held(m).chunks.append(held(m).chunks[0])), ShardMismatch, "both have part"),
    (edited(lambda m: piece(m, "sizes", (2,))), MalformedFile, r"shape \(2,\) at \(0, 0\) of a te"),
    (edited(lambda m: piece(m, "offsets", (0,))), MalformedFile, r"\(2, 1\) at \(0,\) of a tensor"),
    (edited(lambda m: held(m).chunks.clear()), ShardMismatch, "hold 0 of the 6 values"),
    (edited(lambda m: setattr(held(m), "size", (7, 1))), ShardMismatch, "hold 6 of the 7 values"),
    (edited(lambda m: setattr(held(m), "size", (6,))), MalformedFile, r"of shape \(6,\); s"),
    (edited(lambda m: setattr(held(m), "size", (6, -1))), MalformedFile, "a negative size"),
    (edited(lambda m: setattr(held(m), "size", (1, 6))), ShardMismatch, "it is of shape"),
    (edited(lambda m: setattr(held(m), "size", (6.0, 1))), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: setattr(held(m), "size", 3)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: setattr(held(m), "chunks", 3)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: of_dtype(m, None)), MalformedFile, "a tensor of None without a name"),
    (edited(lambda m: of_dtype(m, "F32")), MalformedFile, "a tensor of F32 without a name"),
    (edited(lambda m: of_dtype(m, torch.float16)), ShardMismatch, r"metadata lists F16\(2, 1\)"),
    (edited(lambda m: of_dtype(m, torch.complex128)), PlancError, "no torch.complex128; convert"),
    (edited(lambda m: m.planner_data.update({A: ()})), MalformedFile, "without a name"),
    (edited(lambda m: m.planner_data.update({A: 3})), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: m.planner_data.update({"step": ("n",)})), MalformedFile, "'n' is a pickled"),
    (edited(lambda m: setattr(m, "planner_data", Bomb())), MalformedFile, "it names pathlib"),
    (edited(lambda m: setattr(m, "state_dict_metadata", None)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: setattr(m, "storage_data", None)), MalformedFile, NOT_WRITTEN),
    (edited(lambda m: m.state_dict_metadata.update({3: held(m)})), MalformedFile, "3 is no name"),
    (edited(lambda m: m.storage_data.clear()), ShardMismatch, r"its piece at \(0, 0\) is not th"),
    (lambda d: (d / ".metadata").write_bytes(b""), MalformedFile, NOT_WRITTEN),
    (lambda d: (d / ".metadata").write_bytes(pickle.dumps(3)), MalformedFile, NOT_WRITTEN),
    (lambda d: (d / ".metadata").write_bytes(pickle.dumps(Bomb())), MalformedFile, "it names"),
    (
        lambda d: (d / ".metadata").write_bytes(b"Nr\xff\xff\xff\xff."),
        MalformedFile,
        "it numbers 4294967295",
    ),
    (
        lambda d: (d / ".metadata").write_bytes(b"Nr\0\0\0\0r\xff\xff\xff\xff."),
        MalformedFile,
        "it numbers 4294967295",
    ),
    (lambda d: (d / ".metadata").write_bytes(b"Np6\n."), MalformedFile, "numbers 6 values in 5 b"),
    (lambda d: (d / ".metadata").write_bytes(b"Np5\n."), MalformedFile, "'planner_data'"),
    (lambda d: (d / ".metadata").write_bytes(b"(" * 99), MalformedFile, NOT_WRITTEN),
    (lambda d: (d / FILES[0]).write_bytes(b""), MalformedFile, "not tensors in an archive"),
]


@pytest.mark.parametrize(("edit", "kind", "words"), WRONG)
def test_each_wrong_word_is_refused_by_name_and_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], Any],
    kind: type[Exception],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    edit(written(tmp_path / "in"))
    with pytest.raises(kind, match=words):
        find_native(tmp_path / "in", PLAN.tensors, DEFAULT)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_metadata_in_any_form_that_torch_may_write_is_read(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "in") / ".metadata"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol))
    assert find_native(tmp_path / "in", PLAN.tensors, DEFAULT).entries().keys() == STATE.keys()


SHARDED = "torch.distributed._shard.sharded_tensor.metadata"


@pytest.mark.parametrize(
    ("module", "name", "known"),
    [
        (SHARDED, "TensorProperties", True),
        (SHARDED, "MEM_FORMAT_ENCODING", True),
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING", True),
        ("torch.serialization", "_get_layout", True),
        ("torch", "Size", True),
        ("torch", "float32", True),
        ("collections", "OrderedDict", True),
        ("pathlib", "PosixPath", True),
        ("pathlib", "WindowsPath", True),
        ("pathlib._local", "PosixPath", True),  # as Python 3.13 calls it
        ("pathlib", "os", False),
        ("planc", "PosixPath", False),
        ("planc", "float32", False),
        ("torch", "load", False),
        ("torch", "nothing", False),
        ("torch.serialization", "load", False),
        ("collections", "Counter", False),
        ("os", "system", False),
        ("builtins", "eval", False),
    ],
)
def test_a_pickle_names_what_metadata_is_made_of_and_nothing_else(
    tmp_path: Path, module: str, name: str, known: bool
) -> None:
    (tmp_path / ".metadata").write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(MalformedFile, match=NOT_WRITTEN) as caught:
        find_native(tmp_path, PLAN.tensors, DEFAULT)
    assert (f"it names {module}.{name}" in str(caught.value)) is not known
    assert ("planner_data" in str(caught.value)) is known


def test_limits_hold_for_the_metadata_and_what_it_lists(tmp_path: Path) -> None:
    directory = written(tmp_path / "in")
    for limits, words in ((Limits(index=20), "of 20;"), (Limits(tensors=4), "5 exceeds .* 4 tens")):
        with pytest.raises(LimitExceeded, match=words):
            find_native(directory, PLAN.tensors, limits)


def test_metadata_without_the_keys_that_lead_to_its_entries_has_flat_names(tmp_path: Path) -> None:
    directory = written(tmp_path / "in")
    edited(lambda m: (setattr(m, "planner_data", None), m.state_dict_metadata.pop("step")))(
        directory
    )
    found = find_native(directory, PLAN.tensors, DEFAULT)
    assert found.entries().keys() == STATE.keys()
    assert found.outside == ()


def test_no_edit_of_the_metadata_gives_another_error(tmp_path: Path) -> None:
    chance, directory = random.Random(0), written(tmp_path / "in")
    content = (directory / ".metadata").read_bytes()
    for _ in range(400):
        edit = bytearray(content)
        for _ in range(chance.randrange(1, 4)):
            edit[chance.randrange(len(edit))] = chance.randrange(256)
        (directory / ".metadata").write_bytes(edit)
        with suppress(PlancError):
            find_native(directory, PLAN.tensors, DEFAULT)
