"""Time, peak memory and work of parts of a program, and children that are measured apart."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass
class Stage:
    """What one part took: seconds, and MiB of resident memory at its peak above its beginning."""

    seconds: float = 0.0
    peak: float = 0.0


@contextmanager
def stage() -> Iterator[Stage]:
    """Measures its body. The kernel's own high-water mark is reset, so no peak is missed."""
    result = Stage()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else a peak hides in what earlier parts have freed
    Path("/proc/self/clear_refs").write_text("5")
    base = _resident("VmRSS")
    begin = time.perf_counter()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - begin
        result.peak = max(0.0, _resident("VmHWM") - base)


def _resident(field: str) -> float:
    """A field of the process's status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def macs(model: Any, *inputs: Any) -> int:
    """Multiply-accumulates of one run, half of what torch's own counter measures."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the fused kernel
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def child(module: str, arguments: Iterable[str], limit: float) -> dict[str, Any]:
    """Runs ``python -m module arguments`` and returns the JSON object on its last line.

    A child that fails, or takes more than ``limit`` seconds, gives ``{"failed": why}``.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {limit:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"exit code {done.returncode}: {last}"}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def children(
    module: str, calls: dict[str, list[str]], alone: set[str], jobs: int, limit: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and answer of each call, ``jobs`` at a time; those in ``alone`` one by one."""
    with ThreadPoolExecutor(jobs) as pool:
        running = {
            pool.submit(child, module, arguments, limit): name
            for name, arguments in calls.items()
            if name not in alone
        }
        for future in as_completed(running):
            yield running[future], future.result()
    for name in calls:
        if name in alone:
            yield name, child(module, calls[name], limit)
