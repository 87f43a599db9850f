"""Time, peak memory and work of parts of a program, and processes that are measured apart."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
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
    return counted_run(model, inputs, {})[0]


def counted_run(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Any]:
    """The multiply-accumulates of one run, and what it returns."""
    import torch

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the fused kernel
    trainable = [p for p in getattr(model, "parameters", list)() if p.requires_grad]
    for parameter in trainable:  # the counter hooks gradients, and fails where there are none
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), flop_counter() as counter:
            result = model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for parameter in trainable:
            parameter.requires_grad_(True)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2, result


def flop_counter() -> Any:
    """Torch's ``FlopCounterMode``, with what it does not know, or does not in some versions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    more = {
        torch.ops.aten._grouped_mm: _grouped_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=more)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of ``[..., positions, dim]`` the scores of all pairs, and the sums that they weigh."""
    pairs = math.prod(query[:-1]) * key[-2]
    return int(2 * pairs * (query[-1] + value[-1]))


def _grouped_flops(x: Any, mat2: Any, *_: Any, **__: Any) -> int:
    """Each row of ``x`` times the one of the matrices that it is for."""
    return int(2 * x[0] * x[1] * mat2[2])


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


def forked(
    function: Callable[..., dict[str, Any]],
    calls: Mapping[str, tuple[Any, ...]],
    preload: list[str],
    alone: set[str],
    jobs: int,
    limit: float,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and answer of each call of ``function``, ``jobs`` at a time; of those in ``alone``
    never two. Each has a process of its own, forked from one that has imported ``preload``, so that
    nothing is imported twice. A call that takes more than ``limit`` seconds, or takes its process
    with it, gives ``{"failed": why}``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)

    def call(name: str) -> dict[str, Any]:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(sender, function, calls[name]))
        process.start()
        sender.close()
        try:
            if not receiver.poll(limit):
                return {"failed": f"took more than {limit:.0f} s"}
            answer: dict[str, Any] = receiver.recv()
            return answer
        except EOFError:
            process.join()
            return {"failed": f"exit code {process.exitcode}"}
        finally:
            process.kill()
            process.join()

    one = Lock()

    def call_alone(name: str) -> dict[str, Any]:
        with one:
            return call(name)

    order, apart = [name for name in calls if name not in alone], sorted(alone & calls.keys())
    for number, name in enumerate(apart):  # far from each other, so that hardly any one waits
        order.insert(number * len(order) // len(apart), name)
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(call_alone if n in alone else call, n): n for n in order}
        for future in as_completed(running):
            yield running[future], future.result()


def _answer(
    sender: Connection, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> None:
    try:
        answer = function(*arguments)
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    sender.send(answer)
