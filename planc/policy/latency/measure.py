"""Measurement: the time of every operator of a traced model, at several widths on this machine.

An operator gets operands of random numbers, in the shapes for groups keeping about an eighth, a
quarter, a half, three quarters and all of their units. Groups in the same dimensions of the same
operands shrink together, others separately; operators with equal shapes are measured once. Kernels
working on blocks of channels take equally long for a partly filled block, so the block size is
measured, too.

An operator by itself differs from the same operator in a model, where others have filled the caches
since its operands were last used: a buffer as large as the caches is therefore written between two
calls. The time of a whole run beyond the sum of its operators is mostly Python's and does not
shrink with them. A device working in parallel with Python takes less than the sum; all operators
are then scaled down in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from planc.analysis import Analysis
from planc.ir.plain import leaves
from planc.plan.arguments import a_count, a_text, function_of, instance, optional, takes
from planc.plan.fingerprint import structure_digest
from planc.plan.latency import Grid, LatencyTable, Use
from planc.plan.specification import without_values
from planc.policy.latency.cases import Case, Operand, Probes, cases
from planc.policy.latency.clock import Timer, timer
from planc.policy.latency.machine import processor

_NOTICED = 0.03  # share of an operator's time: a smaller difference may be noise
_MOST = 0.75  # share of a block's time, taken by its first channel alone
_AT_ONCE = 1 << 26  # total elements of the operands measured together


@takes(
    analysis=instance("an analysis", Analysis, advice="give what planc.analyze returns"),
    run=optional(function_of()),
    timed=optional(function_of("calls")),
    threads=optional(a_count),
    device=a_text,
)
def measure_latency(
    analysis: Analysis,
    run: Callable[[], Any] | None = None,
    device: str = "cpu",
    timed: Timer | None = None,
    threads: int | None = None,
) -> LatencyTable:
    """Measure the time of a model's operators on a device, unpruned and at smaller widths.

    Measuring takes at least 30 ms for each width of each operator, half a minute for a ResNet-18.
    The machine should be otherwise idle, with as many threads as the model will have.

    Args:
        analysis: the model's analysis (:func:`planc.analyze`).
        run: runs the model once, such as ``lambda: model(images)``; its time beyond the operators
            becomes part of the table.
        device: the device to measure on, such as ``"cuda:0"``.
        timed: replaces :func:`planc.policy.latency.clock.timer`.
        threads: torch's number of threads meanwhile, by default the current one.
    """
    with _threads(threads):
        return _measured(analysis, run, device, timed or timer(device))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(
    analysis: Analysis, run: Callable[[], Any] | None, device: str, timed: Timer
) -> LatencyTable:
    grids: list[Grid] = []
    uses: list[Use] = []
    known: dict[Any, int | None] = {}
    unmeasured: dict[str, None] = {}
    with torch.no_grad():
        runs = [] if run is None else timed([run])
        for case in cases(analysis):
            if case.key not in known:
                grid = _grid(case, device, timed)
                known[case.key] = None if grid is None else len(grids)
                grids += [] if grid is None else [grid]
            number = known[case.key]
            if number is None:
                unmeasured[case.node.op] = None
            else:
                uses.append(Use(number, case.widths))
        runs += [] if run is None else timed([run])  # twice, so that the moment matters less
    table = LatencyTable(
        structure_digest(analysis.groups),
        without_values(analysis.graph.input_spec),
        processor(device),
        torch.get_num_threads(),
        0,
        tuple(grids),
        tuple(uses),
        tuple(unmeasured),
    )
    return _scaled(table, analysis, min(runs)) if runs else table


def _grid(case: Case, device: str, timed: Timer) -> Grid | None:
    """The operator's time at each point, None if it does not run by itself."""
    measured: list[int] = []
    for points in _batches(case.points):
        taken = _times(case.node.op, points, device, timed)
        if taken is None:
            return None
        measured += taken
    blocks = tuple(_block(case, probes, device, timed) for probes in case.probes)
    return Grid(case.node.op, case.axes, _rising(measured, case.axes), blocks)


def _batches(points: Sequence[Any]) -> Iterator[list[Any]]:
    """The points in order, as many at a time as fit the memory bound with their operands."""
    batch: list[Any] = []
    size = 0
    for point in points:
        own = sum(math.prod(leaf.shape) for leaf in leaves(point) if isinstance(leaf, Operand))
        if batch and size + own > _AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += own
    yield batch


def _block(case: Case, probes: Probes, device: str, timed: Timer) -> int:
    """The channels processed at once along an axis: the largest block size with a drop in time on
    its removal, and no drop on removal of all but one of its channels.
    """
    for size, (without, one_more) in probes:
        taken = _times(case.node.op, [case.points[-1], without, one_more], device, timed)
        if taken is None:
            continue
        full, less, more = taken
        if less < full * (1 - _NOTICED) and more - less > _MOST * (full - less):
            return size
    return 1


def _rising(measured: Sequence[int], axes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Times made monotone in the widths, because disturbances only ever add to a measurement."""
    times = np.array(measured, dtype=np.int64).reshape([len(axis) for axis in axes])
    for dim in range(times.ndim):
        times = np.flip(np.minimum.accumulate(np.flip(times, dim), dim), dim)
    return tuple(times.reshape(-1).tolist())


def _scaled(table: LatencyTable, analysis: Analysis, whole: int) -> LatencyTable:
    """The table adjusted to a total of ``whole`` nanoseconds for the unpruned model."""
    cells = np.array([group.cells for group in analysis.groups], dtype=np.int64)
    alone = max(1, table.prediction(analysis)(cells))
    if whole >= alone:
        return replace(table, rest=whole - alone)
    share = whole / alone
    grids = tuple(
        replace(grid, nanoseconds=tuple(round(taken * share) for taken in grid.nanoseconds))
        for grid in table.grids
    )
    return replace(table, grids=grids)


def _times(op: str, points: Sequence[Any], device: str, timed: Timer) -> list[int] | None:
    """Nanoseconds of one call at each point, None if the operator does not run by itself."""
    namespace, name, variant = op.split(".")
    try:
        function = getattr(getattr(getattr(torch.ops, namespace), name), variant)
        calls = []
        for args, kwargs in points:
            made = tuple(_made(arg, device) for arg in args)
            named = {key: _made(arg, device) for key, arg in kwargs}
            calls.append(partial(function, *made, **named))
        return timed(calls)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _made(argument: Any, device: str) -> Any:
    if isinstance(argument, Operand):
        dtype = getattr(torch, argument.dtype)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.rand(argument.shape, dtype=dtype, device=device)
        return torch.zeros(argument.shape, dtype=dtype, device=device)
    if isinstance(argument, tuple):
        return tuple(_made(item, device) for item in argument)
    return argument
