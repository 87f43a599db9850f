"""Claims of reading what ``torch.save`` wrote without its values: where they lie is right, in
whatever order; what is damaged, or no plain tensor, is refused by name.
"""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from planc.errors import MalformedFile, PlancError, ShardMismatch
from planc.files.disk.limits import DEFAULT
from planc.files.pickles import archives
from planc.files.pickles.archives import Stored, read_archive
from planc.files.pickles.pickled import find_pickled
from planc.files.tensors.pieces import join, open_joined
from tests.files.disk.test_directories import open_files
from tests.support.strategies import example_plan

PLAN = example_plan()
STATE = {
    spec.names[0]: torch.randn(spec.shape, generator=torch.Generator().manual_seed(i))
    for i, spec in enumerate(PLAN.tensors)
}


def stored(path: Path, start: int = 0, length: int | None = None) -> list[Stored]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_archive(path, descriptor, start, length or path.stat().st_size)
    finally:
        os.close(descriptor)


def saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


WHOLE = torch.arange(24.0)
LAID = {
    "plain": WHOLE.reshape(4, 6),
    "transposed": WHOLE.reshape(4, 6).t(),
    "end of another": WHOLE[20:],
    "every second": WHOLE[::2],
    "the same everywhere": WHOLE[3].expand(2, 3),
    "parameter": torch.nn.Parameter(WHOLE[:2].clone()),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "bits": torch.tensor([True, False]),
    "coarse": torch.arange(6.0).to(torch.bfloat16),
}


@pytest.mark.parametrize("before", [0, 1, 4097])
def test_values_are_read_from_where_they_lie(tmp_path: Path, before: int) -> None:
    """Also of an archive that is a range of a longer file."""
    content = saved({"a": LAID, "step": 3, "sizes": [1, 2]})
    (tmp_path / "f").write_bytes(bytes(before) + content + b"more")
    found = stored(tmp_path / "f", before, len(content))
    rest = {entry.path: entry.kind for entry in found if entry.whole is None}
    assert rest == {("step",): "int", ("sizes",): "list"}
    tensors = {entry.path[-1]: entry.whole for entry in found if entry.whole is not None}
    assert tensors.keys() == LAID.keys()
    with open_joined(join(tensors, DEFAULT)) as file:
        for entry in file.header.entries:
            read = b"".join(chunk.tobytes() for chunk in file.chunks(entry, 6))
            expected = LAID[entry.name].detach().contiguous().reshape(-1).view(torch.uint8)
            assert read == bytes(expected.tolist()), entry.name


def rewritten(record: str, content: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of STATE with another content of one of its records."""
    made = io.BytesIO()
    plain = zipfile.ZipFile(io.BytesIO(saved(STATE)))
    with zipfile.ZipFile(made, "w", how) as other:
        for item in plain.infolist():
            name = item.filename
            other.writestr(name, content if name.endswith(record) else plain.read(item))
    return made.getvalue()


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


SPARSE = torch.eye(3).to_sparse()
CONJUGATED = torch.zeros(2, dtype=torch.complex64).conj()
NEGATED = torch.zeros(2, dtype=torch.complex64).conj().imag
REFUSED: list[tuple[bytes, type[PlancError], str]] = [
    (b"", MalformedFile, r"f: not tensors in an archive of torch\.save"),
    (saved(STATE)[:-1], MalformedFile, "not tensors in an archive"),
    (saved(STATE)[5:], MalformedFile, "not tensors in an archive"),
    (saved(Bomb()), MalformedFile, "reads: it names .*; load it with the torch"),
    (saved(SPARSE), MalformedFile, "weights_only reads"),
    (saved(CONJUGATED), PlancError, "no plain dense tensor cannot be cut; make it one"),
    (saved({"a": {"b": NEGATED}}), PlancError, r"f: a\.b: a Tensor .* cannot be cut"),
    (saved({"a": torch.zeros(2, dtype=torch.complex128)}), PlancError, "a: safetensors has no"),
    (rewritten("none", b"", zipfile.ZIP_DEFLATED), MalformedFile, "is compressed"),
    (rewritten("byteorder", b"big"), MalformedFile, "its values are big-endian"),
    (rewritten("data/0", b"short"), MalformedFile, r"bytes at byte \d+, where the archive has 5"),
    (rewritten("data.pkl", b"\x80\x02r"), MalformedFile, "unpack requires a buffer of 4 bytes"),
    (rewritten("data.pkl", b"\x80\x02K\x01Q."), MalformedFile, "must be a tuple"),
    (rewritten("data.pkl", b""), MalformedFile, "weights_only reads: "),
]


@pytest.mark.parametrize(("content", "kind", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_archive_of_plain_tensors_is_refused_and_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    kind: type[PlancError],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(kind, match=words):
        stored(tmp_path / "f", length=len(content) or 1)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_torch_is_told_to_run_nothing_whatever_its_version_does_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 2.6 it ran what a pickle names."""
    (tmp_path / "f").write_bytes(saved(STATE))
    told, real = [], torch.load

    def noted(file: Any, **options: Any) -> Any:
        told.append(options)
        return real(file, **options)

    monkeypatch.setattr(torch, "load", noted)
    assert len(stored(tmp_path / "f")) == len(STATE)
    assert told == [{"map_location": "meta", "weights_only": True}]


def test_an_archive_of_more_than_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pt")
    with pytest.raises(MalformedFile, match=r"it names torch\.nn\.modules\.linear\.Linear, as m"):
        stored(tmp_path / "a.pt")
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "b.pt"))
    with pytest.raises(MalformedFile, match="it is a program of TorchScript; load it with"):
        stored(tmp_path / "b.pt")


class Own(torch.Tensor):
    """A kind of tensor of someone's own."""


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2).as_subclass(Own),
        torch.eye(2).to_sparse_csr(),
        torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
        CONJUGATED,
        NEGATED,
    ],
)
def test_a_tensor_that_is_more_than_its_values_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(PlancError, match=r"f: a: a \w+ \(.*\) that is no plain dense tensor"):
        archives._whole(Path("f"), 0, {}, "a", tensor)


def test_values_that_no_record_has_are_refused() -> None:
    tensor, nothing = torch.zeros(3, dtype=torch.uint8), torch.zeros(0)
    for one in (tensor, nothing):
        one.untyped_storage()._checkpoint_offset = 64
    assert archives._whole(Path("f"), 0, {}, "a", nothing).shape == (0,)
    assert archives._whole(Path("f"), 9, {64: 3}, "a", tensor).pieces[0].start == 73
    for records, held in (({63: 3}, "no record"), ({64: 2}, "2")):
        with pytest.raises(MalformedFile, match=f"has 3 bytes at byte 64, where .* has {held}; c"):
            archives._whole(Path("f"), 9, records, "a", tensor)


def test_a_range_of_a_file_is_read_as_a_file_of_its_own(tmp_path: Path) -> None:
    chance, content = random.Random(0), bytes(range(40))
    (tmp_path / "f").write_bytes(b"before" + content + b"after")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    own, other = archives._Range(descriptor, 6, 40), io.BytesIO(content)
    assert (own.readable(), own.seekable(), own.read(3)) == (True, True, other.read(3))
    for _ in range(300):
        whence = chance.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
        offset = chance.randrange(0 if whence == os.SEEK_SET else -50, 50)
        assert own.seek(offset, whence) == other.seek(offset, whence) == own.tell()
        count = chance.randrange(-1, 50)
        assert own.read(count) == other.read(count)
    os.close(descriptor)


def test_a_torch_that_does_not_say_where_values_lie_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(saved(STATE))
    monkeypatch.setattr(archives, "getattr", lambda *_: None, raising=False)
    with pytest.raises(PlancError, match=r"does not say where in .* values lie; use a newer one"):
        stored(tmp_path / "f")


def test_no_edit_of_an_archive_gives_another_error(tmp_path: Path) -> None:
    chance, content = random.Random(0), saved(STATE)
    for _ in range(400):
        edit = bytearray(content)
        for _ in range(chance.randrange(1, 9)):  # in the pickle, which comes first
            edit[chance.randrange(700)] = chance.choice([*b"rqQR(.b\x8e", chance.randrange(256)])
        (tmp_path / "a.pt").write_bytes(edit)
        with suppress(PlancError):
            find_pickled(tmp_path / "a.pt", PLAN.tensors, DEFAULT)


# sets of them


def sharded(directory: Path, names: tuple[str, ...] = ("a", "b"), suffix: str = ".bin") -> Path:
    holder = {}
    for i, name in enumerate(names):
        held = dict(list(STATE.items())[i :: len(names)])
        torch.save(held, directory / f"pytorch_{name}{suffix}")
        holder |= dict.fromkeys(held, f"pytorch_{name}{suffix}")
    index = directory / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": holder}))
    return index


def test_pickles_get_the_names_of_safetensors_files(tmp_path: Path) -> None:
    found = find_pickled(sharded(tmp_path), PLAN.tensors, DEFAULT)
    assert found.index is not None
    assert found.index.name == "model.safetensors.index.json"
    assert found.index.rest == {"metadata": {"total_size": 3}}
    assert [shard.name for shard in found.shards] == ["a.safetensors", "b.safetensors"]
    assert {n: shard.name for n, (shard, _) in found.entries().items()} == found.index.shards
    assert found.entries().keys() == STATE.keys()
    alone = find_pickled(tmp_path / "pytorch_a.bin", PLAN.tensors, DEFAULT)
    assert [shard.name for shard in alone.shards] == ["a.safetensors"]
    assert alone.index is None


@pytest.mark.parametrize("tied", [True, False])
def test_of_names_that_are_tied_in_plan_and_file_one_stays(tmp_path: Path, tied: bool) -> None:
    """Where their values lie apart they may differ, which is for others to find."""
    first, second = PLAN.tensors[0].names
    tensor = STATE[first]
    torch.save({**STATE, second: tensor if tied else tensor.clone()}, tmp_path / "a.pt")
    found = find_pickled(tmp_path / "a.pt", PLAN.tensors, DEFAULT).entries().keys()
    assert found == STATE.keys() | (set() if tied else {second})


def test_an_index_lists_the_names_that_stay(tmp_path: Path) -> None:
    first, second = PLAN.tensors[0].names
    index = sharded(tmp_path)
    held = torch.load(tmp_path / "pytorch_a.bin")
    torch.save({**held, second: held[first]}, tmp_path / "pytorch_a.bin")
    listed = json.loads(index.read_text())
    listed["weight_map"][second] = "pytorch_a.bin"
    index.write_text(json.dumps(listed))
    found = find_pickled(index, PLAN.tensors, DEFAULT)
    assert found.index is not None
    assert found.index.shards.keys() == found.entries().keys() == STATE.keys()


def test_of_a_training_checkpoint_the_state_dict_alone_is_taken(tmp_path: Path) -> None:
    held = {"model": STATE, "optimizer": {"momentum": torch.zeros(3), "lr": 0.1}, "step": 3}
    torch.save(held, tmp_path / "a.pt")
    before = open_files()
    found = find_pickled(tmp_path / "a.pt", PLAN.tensors, DEFAULT)
    assert open_files() == before
    assert found.entries().keys() == STATE.keys()
    assert found.outside == ("optimizer", "step")


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.pt", "model.safetensors"),
        ("weights", "weights.safetensors"),
        ("weights?", "weights?.safetensors"),
    ],
)
def test_a_pickle_alone_gets_the_name_of_a_safetensors_file(
    tmp_path: Path, name: str, renamed: str
) -> None:
    torch.save(STATE, tmp_path / name)
    found = find_pickled(tmp_path / name, PLAN.tensors, DEFAULT)
    assert [shard.name for shard in found.shards] == [renamed]


def same_name_twice(directory: Path) -> None:
    (directory / "pytorch_b.bin").rename(directory / "pytorch_a.pt")
    index = directory / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("pytorch_b.bin", "pytorch_a.pt"))


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (same_name_twice, ShardMismatch, "two of its files differ in their suffix only"),
        (lambda d: (d / "pytorch_b.bin").unlink(), ShardMismatch, "which is not there; get the m"),
        (lambda d: torch.save({}, d / "pytorch_b.bin"), ShardMismatch, "which does not hold it"),
        (lambda d: torch.save(STATE, d / "pytorch_b.bin"), ShardMismatch, "is in pytorch_a.bin"),
        (lambda d: torch.save(3, d / "pytorch_b.bin"), MalformedFile, "no name is a int"),
        (
            lambda d: torch.save({"m": STATE, "n": STATE}, d / "pytorch_b.bin"),
            PlancError,
            "under 'm' and under 'n'",
        ),
    ],
)
def test_a_set_of_pickles_that_is_wrong_is_refused(
    tmp_path: Path, edit: Callable[[Path], Any], kind: type[PlancError], words: str
) -> None:
    index = sharded(tmp_path)
    edit(tmp_path)
    with pytest.raises(kind, match=words):
        find_pickled(index, PLAN.tensors, DEFAULT)
