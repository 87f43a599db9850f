"""Statistics are saved whole and come back as they were; nothing else is taken for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import planc
from planc.criteria import Statistics, Taylor
from planc.errors import (
    CorruptFile,
    FileError,
    LimitExceeded,
    MalformedFile,
    NotAPlancFile,
    TruncatedFile,
    UnsafePath,
    UnsupportedVersion,
)
from planc.files.checkpoint import statistics as storage
from planc.files.disk.limits import Limits
from planc.files.tensors.reader import TensorFile
from tests.criteria.calibrated import case, loss

CRITERIA = ("taylor_unit", "obd", "obd_c", "wanda")


@pytest.fixture
def statistics() -> Statistics:
    model, batches = case("residual")
    return planc.calibrate(model, batches, [*CRITERIA, Taylor("element", 1)], loss)


def test_statistics_round_trip_through_a_file(statistics: Statistics, tmp_path: Path) -> None:
    planc.save_statistics(statistics, tmp_path / "s")
    loaded = planc.load_statistics(tmp_path / "s")
    assert (loaded.batches, loaded.quantities) == (statistics.batches, statistics.quantities)
    assert loaded.tensors.keys() == statistics.tensors.keys()
    for key, tensor in statistics.tensors.items():
        assert loaded.tensors[key].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[key], tensor)
    planc.save_statistics(loaded, tmp_path / "t")
    assert (tmp_path / "s").read_bytes() == (tmp_path / "t").read_bytes()
    model, batches = case("residual")
    plans = {
        planc.compile(model, batches[0], criterion="taylor_unit", statistics=own)
        for own in (statistics, loaded)
    }
    assert len(plans) == 1


def test_a_failed_save_leaves_the_old_file(
    statistics: Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planc.save_statistics(statistics, tmp_path / "s")
    before = (tmp_path / "s").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        planc.save_statistics(Statistics(1, (), {}), tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


RECORD = '{"kind":"statistics","version":1,"batches":3,"quantities":["squared_gradient"]}'


@pytest.mark.parametrize(
    ("metadata", "key", "shape", "kind", "said"),
    [
        (None, "squared_gradient/w", (2,), NotAPlancFile, "no statistics of planc"),
        ("{", "squared_gradient/w", (2,), MalformedFile, "its record"),
        ('{"kind":"plan"}', "squared_gradient/w", (2,), MalformedFile, "missing required field"),
        (RECORD.replace("1", "2"), "squared_gradient/w", (2,), UnsupportedVersion, "of version 2"),
        (
            RECORD.replace("statistics", "plan"),
            "squared_gradient/w",
            (2,),
            UnsupportedVersion,
            "plan of",
        ),
        (RECORD.replace("3", "0"), "squared_gradient/w", (2,), MalformedFile, "0 batches"),
        (RECORD, "w", (2,), MalformedFile, "w of shape"),
        (RECORD, "sum/w", (2,), MalformedFile, "sum/w of shape"),
        (RECORD, "inputs/w", (4, 7), MalformedFile, r"inputs/w of shape \(4, 7\)"),
        (RECORD, "changes/w:0", (3, 7), MalformedFile, r"changes/w:0 of shape \(3, 7\)"),
        (RECORD, "member_changes/w:0", (2,), MalformedFile, r"changes/w:0 of shape \(2,\)"),
        (RECORD, "kronecker/w", (4, 7), MalformedFile, r"kronecker/w of shape \(4, 7\)"),
        (RECORD, "kronecker_out/w", (4,), MalformedFile, r"kronecker_out/w of shape \(4,\)"),
    ],
)
def test_other_files_are_refused(
    metadata: str | None,
    key: str,
    shape: tuple[int, ...],
    kind: type[FileError],
    said: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    save_file({key: torch.zeros(shape)}, path, None if metadata is None else {"planc": metadata})
    with pytest.raises(kind, match=said):
        planc.load_statistics(path)


def test_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"not a tensor in here")
    with pytest.raises(MalformedFile, match="is text, not a safetensors file"):
        planc.load_statistics(tmp_path / "s")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafePath, match="not a regular file"):
        planc.load_statistics(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        planc.load_statistics(tmp_path / "none")


VALUES = torch.arange(6.0).reshape(2, 3)
SMALL = Statistics(2, ("squared_gradient",), {"squared_gradient/w": VALUES})


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    planc.save_statistics(SMALL, tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    start = int.from_bytes(content[:8], "little") + 8
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "s").write_bytes(damaged)
        with pytest.raises(CorruptFile if bit >= 8 * start else FileError):
            planc.load_statistics(tmp_path / "s")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    planc.save_statistics(SMALL, tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    for length in range(len(content)):
        (tmp_path / "s").write_bytes(content[:length])
        with pytest.raises(FileError):
            planc.load_statistics(tmp_path / "s")


def test_a_file_truncated_during_reading_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped into memory, it would kill the process."""
    real = storage._record

    def cut_short(file: TensorFile) -> storage._Record:
        os.truncate(tmp_path / "s", file.header.data)
        return real(file)

    planc.save_statistics(SMALL, tmp_path / "s")
    monkeypatch.setattr(storage, "_record", cut_short)
    with pytest.raises(TruncatedFile, match="the file ended while it was read"):
        planc.load_statistics(tmp_path / "s")


@pytest.mark.parametrize("limits", [Limits(header=8), Limits(tensors=0)])
def test_limits_hold(limits: Limits, tmp_path: Path) -> None:
    planc.save_statistics(SMALL, tmp_path / "s")
    with pytest.raises(LimitExceeded):
        planc.load_statistics(tmp_path / "s", limits=limits)


def test_early_files_have_no_digest_and_load(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in SMALL.tensors.items()}
    save_file(tensors, tmp_path / "s", {"planc": RECORD})
    found = planc.load_statistics(tmp_path / "s")
    assert (found.batches, found.quantities) == (3, ("squared_gradient",))
    assert torch.equal(found.tensors["squared_gradient/w"], tensors["squared_gradient/w"])


def test_other_libraries_open_them(tmp_path: Path) -> None:
    planc.save_statistics(SMALL, tmp_path / "s")
    assert torch.equal(load_file(tmp_path / "s")["squared_gradient/w"], VALUES)
    planc.save_statistics(Statistics(1, (), {"inputs/e": torch.zeros(5, 0)}), tmp_path / "s")
    assert planc.load_statistics(tmp_path / "s").tensors["inputs/e"].shape == (5, 0)
