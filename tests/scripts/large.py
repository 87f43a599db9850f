"""Checkpoints beyond 4 GiB, as a script: one file with one tensor that is larger than that.

    python -m tests.scripts.large [--dir DIR] [--no-load]

A bfloat16 model of 4.3 GiB loses every sixteenth unit, at random: its result, and in it one tensor,
is beyond 4 GiB still, so that what stands after it begins beyond 2^32. The plan is applied to a
safetensors file, and to the same weights as a pickle and in two pieces of ranks; the removed values
put the file together again; a model with the result is saved and loaded. Slices around 2^31, 2^32
and the ends are read with the safetensors package and compared with what was written there. Needs
20 GiB on a disk; applying is held to 256 MiB of memory, loading (which ``--no-load`` leaves out)
takes 4 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import planc
from planc.files.tensors.header import Entry, place, write_header

UNITS, WIDTH, LAST = 16 * 70_464, 2048, 8  # 15 of 16 units: 4.03 GiB
_ROWS = 1 << 14  # of the largest tensor, written at once
_MOST = 256 << 10  # KiB of memory above the beginning
_CHILD = """
import sys
from planc.files.formats import load_plan
from planc.files.cut import apply_files, restore_files
TRUST
def peak():
    return int(next(l for l in open("/proc/self/status") if "VmHWM" in l).split()[1])
before = peak()
CALL
print(peak() - before)
"""


def main() -> int:
    """Runs all steps; raises AssertionError at the first that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=None, help="a directory on the disk to use")
    parser.add_argument("--no-load", action="store_true", help="do not load, which takes 4 GiB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    directory = Path(tempfile.mkdtemp(dir=options.dir))
    try:
        check(directory, not options.no_load)
    finally:
        shutil.rmtree(directory)
    print("all equal")
    return 0


def build() -> nn.Module:
    """The model, on the meta device."""
    with torch.device("meta"):
        up, down = nn.Linear(WIDTH, UNITS, bias=False), nn.Linear(UNITS, LAST)
        return nn.Sequential(up, nn.ReLU(), down).bfloat16().eval()


def check(directory: Path, load: bool) -> None:
    """All steps in one directory."""
    with step("plan"):
        inputs = torch.zeros(1, WIDTH, dtype=torch.bfloat16, device="meta")
        plan = planc.compile(build(), inputs, ratio=1 / 16, criterion="random")
        planc.save_plan(plan, directory / "p.planc")
    [group] = plan.groups
    kept = np.setdiff1d(np.arange(UNITS), group.removed)
    source, out = directory / "a.safetensors", directory / "b.safetensors"
    with step("write"):
        entries = write(source)
    assert source.stat().st_size > 1 << 32
    with step("apply"):
        run(directory, "apply_files(plan, 'a.safetensors', 'b.safetensors', keep_removed='kept')")
    assert out.stat().st_size > 1 << 32
    with step("read slices with safetensors"):
        check_slices(source, np.arange(UNITS))
        check_slices(out, kept)
    expected = digests(out)
    with step("restore"):
        run(directory, "assert restore_files('b.safetensors', 'kept', 'c.safetensors')")
    (directory / "c.safetensors").unlink()
    with step("apply to two pieces"):
        split(source, entries, directory / "pieces")
        run(directory, "apply_files(plan, 'pieces', 'd')")
    assert digests(directory / "d") == expected
    shutil.rmtree(directory / "pieces")
    shutil.rmtree(directory / "d")
    with step("apply to a pickle"):
        torch.save(load_file(source), directory / "a.bin")
        source.unlink()
        run(directory, "apply_files(plan, 'a.bin', 'e.safetensors', trust_pickle=True)", True)
    assert digests(directory / "e.safetensors") == expected
    (directory / "a.bin").unlink()
    (directory / "e.safetensors").unlink()
    with step("save"):
        smaller = planc.apply(plan, build(), validate=False)
        smaller.load_state_dict(load_file(out), assign=True)  # mapped, not read
        planc.save(directory / "f.safetensors", smaller, plan)
    assert digests(directory / "f.safetensors") == expected
    if load:
        with step("load"):
            loaded = planc.load(directory / "f.safetensors", build())
            for name, tensor in loaded.state_dict().items():
                for one, other in zip(
                    tensor.split(_ROWS), smaller.state_dict()[name].split(_ROWS), strict=True
                ):
                    assert torch.equal(one.view(torch.int16), other.view(torch.int16)), name


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints how long something took."""
    begin = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)


def values(rows: NDArray[Any], width: int) -> NDArray[np.uint16]:
    """The bits of some rows: none is like one that lies a power of two before or after it."""
    rows = np.asarray(rows, dtype=np.int64)
    first = (rows * 40_503 + (rows >> 13) * 25_717).astype(np.uint16)
    return np.add.outer(first, (np.arange(width) * 30_011).astype(np.uint16))


def write(path: Path) -> tuple[Entry, ...]:
    """The weights as a safetensors file."""
    shapes = {"0.weight": (UNITS, WIDTH), "2.bias": (LAST,), "2.weight": (LAST, UNITS)}
    entries = place((name, "BF16", shape) for name, shape in shapes.items())
    with path.open("wb") as file:
        file.write(write_header(entries, {"format": "pt"}))
        for start in range(0, UNITS, _ROWS):
            rows = np.arange(start, min(start + _ROWS, UNITS))
            file.write(values(rows, WIDTH).tobytes())
        file.write(np.arange(LAST, dtype=np.uint16).tobytes())
        for row in range(LAST):
            file.write(values(np.array([row]), UNITS).tobytes())
    return entries


def check_slices(path: Path, units: NDArray[Any]) -> None:
    """Reads around the places where an offset of 31 or 32 bits ends, and compares."""
    row = 2 * WIDTH
    with safe_open(path, "pt") as file:
        first, last = file.get_slice("0.weight"), file.get_slice("2.weight")
        assert first.get_shape() == [len(units), WIDTH]
        for at in (0, (1 << 31) // row - 8, (1 << 32) // row - 8, len(units) - 16):
            found = first[at : at + 16].view(torch.int16).numpy().view(np.uint16)
            assert np.array_equal(found, values(units[at : at + 16], WIDTH)), at
        for line in (0, LAST - 1):
            found = last[line : line + 1].view(torch.int16).numpy().view(np.uint16)
            assert np.array_equal(found, values(np.array([line]), UNITS)[:, units])


def split(source: Path, entries: tuple[Entry, ...], directory: Path) -> None:
    """The same weights as two ranks leave them: the largest tensor in two, one over 2 GiB."""
    directory.mkdir()
    half = UNITS // 2 - 3
    parts = [
        {"0.weight": ((half, WIDTH), (0, 0), 0)},
        {
            "0.weight": ((UNITS - half, WIDTH), (half, 0), half * 2 * WIDTH),
            "2.bias": ((LAST,), (0,), 0),
            "2.weight": ((LAST, UNITS), (0, 0), 0),
        },
    ]
    starts = {entry.name: entry.start for entry in entries}
    data = source.stat().st_size - entries[-1].stop
    for rank, part in enumerate(parts, 1):
        own = place((name, "BF16", shape) for name, (shape, _, _) in part.items())
        offsets = {name: {"saved_offsets": at} for name, (_, at, _) in part.items()}
        path = directory / f"shard-{rank:05d}-model-00001-of-00001.safetensors"
        with path.open("wb") as file, source.open("rb") as whole:
            file.write(write_header(own, {"DCP_SHARDING_INFO": json.dumps(offsets)}))
            for entry in own:
                whole.seek(data + starts[entry.name] + part[entry.name][2])
                left = entry.stop - entry.start
                while left:
                    left -= file.write(whole.read(min(left, 64 << 20)))


def digests(path: Path) -> dict[str, bytes]:
    """What a checkpoint says of its tensors."""
    return {tensor.names[0]: tensor.digest for tensor in planc.inspect(path).tensors}


def run(directory: Path, call: str, torch_too: bool = False) -> None:
    """Runs one call in a process of its own, and holds it to a bound of memory."""
    more = "import torch, planc.files.pickles.pickled" if torch_too else ""
    script = _CHILD.replace("TRUST", more).replace("CALL", f"plan = load_plan('p.planc')\n{call}")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < _MOST, f"{call}: {int(done.stdout) >> 10} MiB"
    print(f"  {int(done.stdout) >> 10} MiB above the beginning", flush=True)


if __name__ == "__main__":
    sys.exit(main())
