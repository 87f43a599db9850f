"""Applying a plan to a sharded checkpoint of Llama's kind, beside ``cp`` of what is left.

    python -m tests.bench.streaming --gib 4 --workers 2

A decoder is built on the meta device, a plan is compiled for it, its weights are made up (bfloat16,
random) as shards with an index. Then, in one run and on one disk: the bytes that the plan keeps are
copied with ``cp`` and flushed, the plan is applied to the shards by a process of its own, and the
two rates are compared. Memory is the peak of that process and of its workers above what they hold
before they begin. Everything is deleted afterwards.
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
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import planc
from planc.codec.files import replacing
from planc.plan import Plan
from planc.tensorfiles.header import nbytes, place
from planc.tensorfiles.writer import TensorWriter

_PIECE = 16 << 20
_APPLY = """
import multiprocessing, os, sys, threading, time
from planc.codec import load_plan
from planc.streaming import apply_files

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

if __name__ == "__main__":
    plan, source, target, workers = sys.argv[1:]
    loaded, worker = load_plan(plan), [0]
    before, began, cpu = peak(os.getpid()), time.perf_counter(), time.process_time()
    threading.Thread(target=watch, daemon=True).start()
    apply_files(loaded, source, target, workers=int(workers))
    print(time.perf_counter() - began, peak(os.getpid()) - before, max(worker[0] - before, 0),
          time.process_time() - cpu)
"""


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
        with replacing(directory / shard) as descriptor:
            writer = TensorWriter(descriptor, entries, {"format": "pt"})
            for entry in entries:
                writer.add(entry, _random(rng, entry.stop - entry.start))
                shard_of[entry.name] = shard
            writer.finish()
    table = {"metadata": {}, "weight_map": shard_of}
    (directory / "model.safetensors.index.json").write_text(json.dumps(table))


def _random(rng: np.random.Generator, size: int) -> Iterator[bytes]:
    for start in range(0, size, _PIECE):
        yield rng.bytes(min(_PIECE, size - start))


def copied(source: Path, target: Path) -> float:
    """Seconds to copy a directory with ``cp`` and flush it to the disk."""
    began = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in target.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2, help="size of the whole checkpoint")
    parser.add_argument("--width", type=int, default=4096, help="of the residual stream")
    parser.add_argument("--shard-gib", type=float, default=0.5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
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
    source = directory / "source"
    source.mkdir()
    made_up(source, model, int(options.shard_gib * (1 << 30)))
    shards = len(list(source.glob("*.safetensors")))
    print(f"{len(model.layers)} layers in {shards} shards, {_gib(source):.2f} GiB")
    script = directory / "apply_once.py"  # workers start by running it again
    script.write_text(_APPLY)
    for workers in options.workers:
        for _ in range(options.repeat):
            target, copy = directory / "target", directory / "copy"
            arguments = [directory / "plan.planc", source, target, str(workers)]
            done = subprocess.run(
                [sys.executable, script, *map(str, arguments)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            seconds, own, child = float(done[0]), int(done[1]) >> 10, int(done[2]) >> 10
            kept = _gib(target)
            cp = copied(target, copy)
            print(
                f"workers {workers}: {kept:.2f} GiB kept, {kept / seconds:.2f} GiB/s out and "
                f"{_gib(source) / seconds:.2f} GiB/s in; cp {kept / cp:.2f} GiB/s; "
                f"ratio {cp / seconds:.2f}; CPU {float(done[3]):.1f} s; "
                f"peak above baseline {own} MiB, of a worker {child} MiB"
            )
            shutil.rmtree(target)
            shutil.rmtree(copy)


def _gib(directory: Path) -> float:
    return sum(path.stat().st_size for path in directory.iterdir()) / (1 << 30)


if __name__ == "__main__":
    main()
