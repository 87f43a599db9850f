"""R2 and R3: golden files and larger checkpoints cut short at every length, or with any one bit
flipped, are refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import planc
from planc.errors import CorruptFile, FileError, ShardMismatch
from planc.files.checkpoint.load import read_tensors
from planc.files.disk.limits import DEFAULT
from planc.files.formats import decode_plan
from planc.files.formats.checkpoint import StoredTensor
from planc.files.tensors.opened import open_checkpoint
from planc.files.tensors.reader import read_header
from tests.scripts.promises import Goal
from tests.support.golden_files import DIRECTORY, ROOT, VERSIONS

PLANS = sorted(
    path.relative_to(ROOT).as_posix()
    for version in VERSIONS
    for path in (ROOT / version / "plans").iterdir()
)
CHECKPOINTS = ["single/net.safetensors", "sharded", "bfloat16/net.safetensors", "applied"]
FLIPPED = ["single/net.safetensors", "sharded"]
SUFFIXES = (".safetensors", ".planc-extra")
PARTS = 8  # of the bits of the tensors
REFUSED = (FileError, ShardMismatch)


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint that have tensors."""
    directory = path if path.is_dir() else path.parent
    return [file for file in sorted(directory.iterdir()) if file.suffix in SUFFIXES]


@contextmanager
def copied(name: str, to: Path) -> Iterator[Path]:
    """A golden checkpoint in a directory of its own."""
    source = DIRECTORY / "checkpoints" / name
    shutil.copytree(source if source.is_dir() else source.parent, to / "copy")
    yield to / "copy" / ("" if source.is_dir() else source.name)


@pytest.mark.promise("R2 plans")
@pytest.mark.parametrize("name", PLANS)
def test_a_golden_plan_is_refused_at_every_length_but_its_own(name: str, goal: Goal) -> None:
    content = (ROOT / name).read_bytes()
    for length in range(len(content)):
        with pytest.raises(FileError):
            decode_plan(content[:length])
    goal.count(len(content))


@pytest.mark.long
@pytest.mark.promise("R3 plans")
@pytest.mark.parametrize("name", PLANS)
def test_a_golden_plan_is_refused_with_any_bit_flipped(name: str, goal: Goal) -> None:
    content = bytearray((ROOT / name).read_bytes())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileError):
            decode_plan(bytes(content))
        content[bit // 8] ^= 1 << bit % 8
    decode_plan(bytes(content))
    goal.count(8 * len(content))


@pytest.mark.long
@pytest.mark.promise("R2 checkpoints")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_golden_checkpoint_is_refused_with_a_file_cut_short(
    name: str, tmp_path: Path, goal: Goal
) -> None:
    cases = 0
    with copied(name, tmp_path) as path:
        for file in files_of(path):
            content = file.read_bytes()
            for length in reversed(range(len(content))):
                os.truncate(file, length)
                with pytest.raises(REFUSED):
                    open_checkpoint(path)
            file.write_bytes(content)
            cases += len(content)
        open_checkpoint(path)
    goal.count(cases)


def saved(path: Path) -> None:
    """A checkpoint of 64 KiB in 8 tensors."""
    torch.manual_seed(0)
    layers = [nn.Linear(32, 64, bias=False) if i % 2 else nn.Linear(64, 32) for i in range(8)]
    for layer in layers:
        layer.bias = None
    model = nn.Sequential(*layers)
    plan = planc.compile(model, torch.zeros(1, 64), ratio=0)
    planc.save(path, planc.apply(plan, model), plan)


@pytest.mark.promise("R2 checkpoints")
def test_a_larger_file_is_refused_at_every_length_of_its_header_and_at_every_page(
    tmp_path: Path, goal: Goal
) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    size, header = path.stat().st_size, read_header(path).data
    assert size - header == 64 << 10
    lengths = {*range(header + 1), *range(header, size, 4096), *range(0, size, 4096)}
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        with pytest.raises(FileError):
            open_checkpoint(path)
    goal.count(len(lengths))


@contextmanager
def flips(file: Path, start: int, stop: int) -> Iterator[Iterator[int]]:
    """Each bit of the bytes ``start <= i < stop`` of a file, flipped while it is given."""
    descriptor = os.open(file, os.O_RDWR)

    def one_by_one() -> Iterator[int]:
        content = os.pread(descriptor, stop - start, start)
        for at, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(descriptor, bytes([byte ^ 1 << bit]), start + at)
                yield 8 * at + bit
            os.pwrite(descriptor, bytes([byte]), start + at)

    try:
        yield one_by_one()
    finally:
        os.close(descriptor)


@pytest.mark.long
@pytest.mark.promise("R3 headers")
@pytest.mark.parametrize("name", FLIPPED)
def test_a_checkpoint_is_refused_with_any_bit_of_a_header_flipped(
    name: str, tmp_path: Path, goal: Goal
) -> None:
    cases = 0
    with copied(name, tmp_path) as path:
        for file in files_of(path):
            with flips(file, 0, read_header(file).data) as flipped:
                for _ in flipped:
                    with pytest.raises(REFUSED):
                        open_checkpoint(path)
                    cases += 1
        open_checkpoint(path)
    goal.count(cases)


@pytest.mark.long
@pytest.mark.promise("R3 tensors")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_checkpoint_is_refused_with_any_bit_of_a_tensor_flipped(
    part: int, tmp_path: Path, goal: Goal
) -> None:
    path = tmp_path / "a.safetensors"
    saved(path)
    opened = open_checkpoint(path)
    stored = opened.checkpoint.tensors[part]
    entry = opened.places[stored.names[0]]
    into = torch.empty(stored.shape)

    def target(tensor: StoredTensor) -> torch.Tensor | None:
        return into if tensor is stored else None

    start, cases = read_header(path).data + entry.start, 0
    with flips(path, start, start + entry.stop - entry.start) as flipped:
        for _ in flipped:
            with pytest.raises(CorruptFile):
                read_tensors(opened, target, True, DEFAULT)
            cases += 1
    read_tensors(opened, target, True, DEFAULT)
    goal.count(cases)
