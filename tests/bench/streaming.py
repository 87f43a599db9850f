"""Applying a plan to a sharded checkpoint of Llama's kind, beside ``cp`` of what is left.

    python -m tests.bench.streaming --gib 4 --workers 1 2

A decoder is built on the meta device, a plan is compiled for it, its weights are made up (bfloat16,
random) as shards with an index. Then, in every round and on one disk, one after the other: the
bytes that the plan keeps are copied with ``cp``, and the plan is applied to the shards by a process
of its own, with each number of workers. Both end when their files are flushed. Before each of them
the disk is idle, what it reads is dropped from the system's cache (``--cache warm``: read into it),
and there is as much free; rounds begin with another one of them in turn. A ratio is that of the two
rates of one round. The seconds of an apply include the start of its workers, not that of Python.

Memory is the peak of that process and of each worker above what the process holds before it begins.
CPU is the time of all of them. Every result is compared with the first one by the digests in its
record. Everything is deleted afterwards.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import planc
from planc.files.disk.atomic import replacing
from planc.files.tensors.header import nbytes, place
from planc.files.tensors.reader import read_header
from planc.files.tensors.writer import TensorWriter
from planc.plan.plan import Plan

_PIECE = 16 << 20
_MIB, _GIB = 1 << 20, 1 << 30
_APPLY = """
import json, multiprocessing, os, resource, sys, threading, time
from planc.files.formats import load_plan
from planc.files.cut import apply_files

def peak(pid):  # VmHWM: the largest resident memory so far, in KiB
    try:
        with open(f"/proc/{pid}/status") as status:
            lines = [line.split() for line in status if line.startswith("VmHWM")]
    except OSError:
        return 0
    return int(lines[0][1]) if lines else 0

def watch():
    while True:
        for child in multiprocessing.active_children():
            worker[0] = max(worker[0], peak(child.pid))
        time.sleep(0.01)

def cpu():
    both = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)

if __name__ == "__main__":
    plan, source, target, workers = sys.argv[1:]
    loaded, worker = load_plan(plan), [0]
    threading.Thread(target=watch, daemon=True).start()
    before, used, began = peak(os.getpid()), cpu(), time.perf_counter()
    apply_files(loaded, source, target, workers=int(workers))
    seconds = time.perf_counter() - began
    memory = max(peak(os.getpid()), worker[0]) - before
    print(json.dumps({"seconds": seconds, "cpu": cpu() - used, "memory": memory << 10}))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One copy, or one apply with some workers: seconds, those of CPU, bytes above the baseline."""

    seconds: float
    cpu: float
    memory: int = 0


class Attention(nn.Module):
    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (
            proj(x).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: torch.Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    def __init__(self, width: int, inner: int, head_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, head_dim)
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        inner = self.post_attention_layernorm(x)
        down: torch.Tensor = self.down_proj(F.silu(self.gate_proj(inner)) * self.up_proj(inner))
        return x + down


class Decoder(nn.Module):
    """Shapes and names of Llama's kind; only its structure is needed here."""

    def __init__(self, layers: int, width: int = 4096, vocabulary: int = 32_000) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, width * 11 // 4, 128) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.lm_head(self.norm(x))
        return logits


def meta_decoder(gib: float, width: int) -> Decoder:
    """A decoder of about so many GiB in bfloat16."""
    with torch.device("meta"):
        ends, one = (sum(p.numel() for p in Decoder(n, width).parameters()) for n in (0, 1))
        layers = max(1, round((gib * (1 << 30) / 2 - ends) / (one - ends)))
        return Decoder(layers, width).to(torch.bfloat16)


def compiled(model: nn.Module) -> Plan:
    """Half of the heads and of each MLP's width; the residual stream stays."""
    tokens = torch.zeros(1, 8, dtype=torch.int64, device="meta")
    kinds = {"heads": 0.5}
    keep = ["embed_tokens*"]
    return planc.compile(model, tokens, ratio=0.5, kinds=kinds, keep=keep, criterion="random")


def made_up(directory: Path, model: nn.Module, shard_size: int) -> None:
    """Shards with random values and their index."""
    shards: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    held = 0
    for name, tensor in model.state_dict().items():
        size = nbytes("BF16", tensor.shape)
        if shards[-1] and held + size > shard_size:
            shards.append([])
            held = 0
        shards[-1].append((name, "BF16", tuple(tensor.shape)))
        held += size
    rng, shard_of = np.random.default_rng(0), {}
    for i, specs in enumerate(shards, 1):
        shard = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        entries = place(specs)
        with (
            replacing(directory / shard) as descriptor,
            TensorWriter(descriptor, entries, {"format": "pt"}) as writer,
        ):
            for entry in entries:
                writer.add(entry, _random(rng, entry.stop - entry.start))
                shard_of[entry.name] = shard
            writer.finish()
    table = {"metadata": {}, "weight_map": shard_of}
    (directory / "model.safetensors.index.json").write_text(json.dumps(table))


def _random(rng: np.random.Generator, size: int) -> Iterator[bytes]:
    for start in range(0, size, _PIECE):
        yield rng.bytes(min(_PIECE, size - start))


def copied(source: Path, target: Path) -> Run:
    """Copies a directory with ``cp`` and flushes it to the disk."""
    began, used = time.perf_counter(), os.times()
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    seconds, now = time.perf_counter() - began, os.times()
    cpu = sum(now[:4]) - sum(used[:4])
    return Run(seconds, cpu)


def applied(directory: Path, target: Path, workers: int) -> Run:
    """Applies the plan in a process of its own."""
    arguments = [directory / "apply_once.py", directory / "plan.planc", directory / "source"]
    command = [sys.executable, *map(str, [*arguments, target, workers])]
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Run(**json.loads(done))


def prepare(directory: Path, warm: bool) -> None:
    """What is in a directory is on the disk, and in the system's cache or not."""
    os.sync()
    for path in directory.iterdir():
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            piece = bytearray(_PIECE)
            while warm and file.readinto(piece):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2, help="size of the whole checkpoint")
    parser.add_argument("--width", type=int, default=4096, help="of the residual stream")
    parser.add_argument("--shard-gib", type=float, default=0.5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--cache", choices=["cold", "warm"], default="cold")
    parser.add_argument("--dir", type=Path, default=None, help="a directory on the disk to use")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.dir))
    try:
        run(directory, options)
    finally:
        shutil.rmtree(directory)


def run(directory: Path, options: argparse.Namespace) -> None:
    model = meta_decoder(options.gib, options.width)
    began = time.perf_counter()
    plan = compiled(model)
    print(f"planned on the meta device in {time.perf_counter() - began:.1f} s")
    planc.save_plan(plan, directory / "plan.planc")
    (directory / "apply_once.py").write_text(_APPLY)  # workers start by running it again
    source, kept, target = (directory / name for name in ("source", "kept", "target"))
    source.mkdir()
    made_up(source, model, int(options.shard_gib * _GIB))
    applied(directory, kept, max(options.workers))
    shards = len(list(source.glob("*.safetensors")))
    print(
        f"{len(model.layers)} layers in {shards} shards, {_size(source) / _GIB:.2f} GiB, "
        f"{_size(kept) / _GIB:.2f} GiB kept; source {options.cache}"
    )
    expected = _record(kept)
    rounds: list[dict[int, Run]] = []
    for number in range(options.repeat):
        found: dict[int, Run] = {}
        order = [0, *options.workers]  # 0 is cp
        first = number % len(order)
        for workers in order[first:] + order[:first]:
            prepare(source if workers else kept, options.cache == "warm")
            load = os.getloadavg()[0]
            found[workers] = (
                applied(directory, target, workers) if workers else copied(kept, target)
            )
            if _record(target) != expected:
                raise SystemExit(f"{workers} workers: another result than before")
            shutil.rmtree(target)
            name = f"{workers} workers" if workers else "cp"
            rate = _size(kept) / _GIB / found[workers].seconds
            print(f"  {name}: {rate:.2f} GiB/s, load before it {load:.1f}", flush=True)
        rounds.append(found)
    report(rounds, _size(source), _size(kept), _largest_header(source))


def report(rounds: list[dict[int, Run]], source: int, kept: int, header: int) -> None:
    """Prints a line for cp and for each number of workers: medians, and the worst."""
    print(f"{len(rounds)} rounds, median (worst); GiB of what is kept")
    for workers in sorted(rounds[0]):
        runs = [found[workers] for found in rounds]
        rates = [kept / _GIB / run.seconds for run in runs]
        per_core = [kept / _GIB / run.cpu for run in runs]
        line = f"{median(rates):.2f} ({min(rates):.2f}) GiB/s"
        line += f", {median(per_core):.2f} ({min(per_core):.2f}) GiB per second of CPU"
        if not workers:
            print(f"cp: {line}")
            continue
        ratios = [found[0].seconds / found[workers].seconds for found in rounds]
        print(
            f"{workers} workers: {line}, of input {source / kept * median(per_core):.2f}; "
            f"ratio to cp {median(ratios):.2f} ({min(ratios):.2f}); memory above baseline "
            f"{max(run.memory for run in runs) / _MIB:.0f} MiB of "
            f"{(256 * _MIB + 16 * header) / _MIB:.0f} allowed"
        )


def _record(directory: Path) -> bytes:
    """What a result says of all its tensors, digests among it."""
    return read_header(min(directory.glob("*.safetensors"))).raw


def _largest_header(directory: Path) -> int:
    return max(len(read_header(path).raw) for path in directory.glob("*.safetensors"))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


if __name__ == "__main__":
    main()
