"""Measuring: every operator of a traced model by itself, at several widths, on this machine.

In: an analysis. Out: a :class:`planc.latency.table.LatencyTable`. An operator gets operands of
random numbers in the shapes that they have when its groups keep about an eighth, a quarter, a half,
three quarters and all of their units. Groups that touch the same dimensions of the same operands
shrink together, others apart; operators that do the same in the same shapes are measured once.
Kernels that work on blocks of channels take as long for a block that is not full: how large blocks
are is measured, too.

What an operator takes by itself is not what it takes in a model. There, others have filled the
caches since its operands were last used: so much is written between two calls here, too. What a run
of the whole model still takes beyond the sum of its operators (or less, on a device that works
while Python goes on) grows and falls with them, and is shared out among them in proportion.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from planc.analysis import Analysis
from planc.expr import Scalar
from planc.facts import Demand
from planc.fingerprint import structure_digest
from planc.ir import Node, Ref, refs
from planc.latency.machine import processor
from planc.latency.table import Grid, LatencyTable, Use
from planc.rules import find, parameters
from planc.widths import Poly

FRACTIONS = {1: (1, 2, 4, 6, 8), 2: (1, 2, 4, 6, 8), 3: (2, 4, 8)}  # eighths, by number of axes
_BLOCKS = (32, 16, 8)  # channels that kernels may take at once, largest first
_ALIGNED = 16  # of what is measured, widths above are multiples of this: no block is begun in vain
_BETWEEN = 16 << 20  # bytes written between two calls, more than the caches of a core hold
_CALLS = 5
_NOTICED = 0.03  # of an operator's time: a smaller difference may be chance
_MOST = 0.75  # of what a block takes, for its first channel alone
Timer = Callable[[Callable[[], Any]], int]
"""From a function to the nanoseconds that one call takes."""


def timer(device: str = "cpu", seconds: float = 0.03) -> Timer:
    """A timer that takes the quickest of at least five calls, for about so many seconds.

    One thread is measured by the processor's clock, which stands still while others are at work.
    """
    wait = getattr(torch, device.partition(":")[0]).synchronize if device != "cpu" else None
    alone = wait is None and torch.get_num_threads() == 1
    clock = time.process_time_ns if alone else time.perf_counter_ns
    other = torch.zeros(_BETWEEN // 4, device=device)

    def timed(call: Callable[[], Any]) -> int:
        call()
        taken: list[int] = []
        until = time.perf_counter() + seconds
        while len(taken) < _CALLS or time.perf_counter() < until:
            other.add_(1)
            if wait is not None:
                wait()
            begin = clock()
            call()
            if wait is not None:
                wait()
            taken.append(clock() - begin)
        return min(taken)

    return timed


def measure_latency(
    analysis: Analysis,
    run: Callable[[], Any] | None = None,
    device: str = "cpu",
    timed: Timer | None = None,
    threads: int | None = None,
) -> LatencyTable:
    """Measures what the operators of a model take on a device, as they are and with less.

    Args:
        run: runs the model once, as ``lambda: model(images)``; the operators together then take
            what that takes.
        device: where operators are measured, as ``"cuda:0"``.
        timed: instead of :func:`timer`.
        threads: of torch, meanwhile; as many as it has by default.

    It takes at least 30 ms for each width of each operator, half a minute for a ResNet-18. The
    machine should have nothing else to do, and as many threads as the model will have.
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
        for case in _cases(analysis):
            if case.key not in known:
                grid = _grid(case, device, timed)
                known[case.key] = None if grid is None else len(grids)
                grids += [] if grid is None else [grid]
            number = known[case.key]
            if number is None:
                unmeasured[case.node.op] = None
            else:
                uses.append(Use(number, case.widths))
        whole = None if run is None else min(timed(run) for _ in range(3))
    table = LatencyTable(
        structure_digest(analysis.groups),
        analysis.graph.input_spec,
        processor(device),
        torch.get_num_threads(),
        tuple(grids),
        tuple(uses),
        tuple(unmeasured),
    )
    return table if whole is None else _scaled(table, analysis, whole)


def _grid(case: _Case, device: str, timed: Timer) -> Grid | None:
    """What the operator takes at each point, None if it cannot be run by itself."""
    taken = [_time(case.node.op, point, device, timed) for point in case.points]
    measured = tuple(nanoseconds for nanoseconds in taken if nanoseconds is not None)
    if len(measured) < len(taken):
        return None
    blocks = tuple(_block(case, probes, measured[-1], device, timed) for probes in case.probes)
    return Grid(case.node.op, case.axes, _rising(measured, case.axes), blocks)


def _block(case: _Case, probes: _Probes, full: int, device: str, timed: Timer) -> int:
    """The channels that the operator takes at once along an axis: the largest number by which its
    time falls, and would not had one channel less of them gone.
    """
    for size, (without, one_more) in probes:
        less = _time(case.node.op, without, device, timed)
        if less is None or less > full * (1 - _NOTICED):
            continue
        more = _time(case.node.op, one_more, device, timed)
        if more is not None and more - less > _MOST * (full - less):
            return size
    return 1


def _rising(measured: tuple[int, ...], axes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Times of which none is above one for more: whatever disturbs a measurement, it adds."""
    times = np.array(measured, dtype=np.int64).reshape([len(axis) for axis in axes])
    for dim in range(times.ndim):
        times = np.flip(np.minimum.accumulate(np.flip(times, dim), dim), dim)
    return tuple(times.reshape(-1).tolist())


def _scaled(table: LatencyTable, analysis: Analysis, whole: int) -> LatencyTable:
    """The table whose operators take so many nanoseconds together where nothing has shrunk."""
    cells = np.array([group.cells for group in analysis.groups], dtype=np.int64)
    share = whole / max(1, table.prediction(analysis)(cells))
    grids = tuple(
        replace(grid, nanoseconds=tuple(round(taken * share) for taken in grid.nanoseconds))
        for grid in table.grids
    )
    return replace(table, grids=grids)


@dataclass(frozen=True, slots=True)
class _Operand:
    """A tensor to be made."""

    shape: tuple[int, ...]
    dtype: str


_Probes = tuple[tuple[int, tuple[Any, Any]], ...]
"""Sizes of blocks; the arguments without the last such block, and with one channel of it."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A node with its arguments at each point of its grid, the last of them the whole ones."""

    node: Node
    axes: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[tuple[int, int], ...], ...]
    points: tuple[Any, ...]
    probes: tuple[_Probes, ...]  # of each axis

    @property
    def key(self) -> Any:
        """Equal for nodes that do the same in the same shapes."""
        return self.node.op, self.axes, repr(self.points)


def _cases(analysis: Analysis) -> Iterator[_Case]:
    demands: dict[int, list[Demand]] = {}
    for demand in analysis.walked.facts.demands:
        demands.setdefault(demand.node, []).append(demand)
    for i, node in enumerate(analysis.graph.nodes):
        if node.idle or not any(ref is not None for ref in node.outputs):
            continue
        yield _Sizes(analysis, node, demands.get(i, [])).case()


class _Sizes:
    """The sizes of one node's operands, as polynomials in what groups keep."""

    def __init__(self, analysis: Analysis, node: Node, demands: list[Demand]) -> None:
        self.analysis, self.node, self.demands = analysis, node, demands
        self.values = [ref.id for ref in refs((node.args, node.kwargs_values))]
        self.polys = {
            (value, dim): self._width(value, dim)
            for value in self.values
            for dim in range(analysis.walked.labels[value].rank)
        }

    def _width(self, value: int, dim: int) -> Poly:
        x = self.analysis.walked.labels[value]
        try:
            return self.analysis.grouping.width(x, dim)
        except ArithmeticError:  # a part of a group: measured as it is
            return Poly.const(x.shape[dim])

    def case(self) -> _Case:
        """The node at the points of a grid, of one point if nothing in it shrinks."""
        cells = [group.cells for group in self.analysis.groups]
        bundles = self._bundles()
        if len(bundles) > max(FRACTIONS):
            bundles = [[pair for bundle in bundles for pair in bundle]]
        axes, kept_at = [], []
        for bundle in bundles:
            by_width: dict[int, dict[int, int]] = {}
            for eighths in FRACTIONS[len(bundles)]:
                kept = {g: _part(cells[g], eighths) for g, _ in bundle}
                by_width[sum(factor * kept[g] for g, factor in bundle)] = kept
            axes.append(tuple(sorted(by_width)))
            kept_at.append([by_width[width] for width in axes[-1]])
        points = []
        for parts in itertools.product(*kept_at):
            counts = list(cells)
            for part in parts:
                for g, count in part.items():
                    counts[g] = count
            points.append(self._arguments(counts))
        probes = tuple(self._probes(bundle, cells) for bundle in bundles)
        return _Case(self.node, tuple(axes), tuple(map(tuple, bundles)), tuple(points), probes)

    def _probes(self, bundle: list[tuple[int, int]], cells: list[int]) -> _Probes:
        g, factor = bundle[0]
        found = []
        for size in _BLOCKS:
            if factor != 1 or cells[g] <= size or cells[g] % size:
                continue
            counts = (cells[g] - size, cells[g] - size + 1)
            at = [[*cells[:g], count, *cells[g + 1 :]] for count in counts]
            found.append((size, (self._arguments(at[0]), self._arguments(at[1]))))
        return tuple(found)

    def _bundles(self) -> list[list[tuple[int, int]]]:
        """Groups that touch the same dimensions, with the factor of each in the first of them."""
        touched: dict[int, dict[tuple[int, int], int]] = {}
        for place, poly in self.polys.items():
            for monomial, factor in poly.terms:
                for g in monomial:
                    assert isinstance(g, int), "widths are polynomials in groups alone"
                    found = touched.setdefault(g, {})
                    found[place] = found.get(place, 0) + factor
        bundles: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
        for g, places in sorted(touched.items()):
            bundles.setdefault(tuple(places), []).append((g, next(iter(places.values()))))
        return list(bundles.values())

    def _arguments(self, counts: Sequence[int]) -> Any:
        args, kwargs = list(self.node.args), dict(self.node.kwargs)
        fn = find(self.node.op)
        names = parameters(fn) if fn is not None else ()
        for demand in self.demands:
            poly = self.analysis.grouping.width(demand.labelled, demand.dim)
            width = demand.sign * poly.value(lambda g: counts[g])  # type: ignore[index]
            at = names.index(demand.arg) if demand.arg in names else len(args)
            if demand.arg in kwargs:
                kwargs[demand.arg] = _placed(kwargs[demand.arg], demand.index, width)
            elif at < len(args):
                args[at] = _placed(args[at], demand.index, width)
        plain = tuple(self._argument(arg, counts) for arg in args)
        return plain, tuple((name, self._argument(arg, counts)) for name, arg in kwargs.items())

    def _argument(self, argument: Any, counts: Sequence[int]) -> Any:
        if isinstance(argument, Ref):
            value = self.analysis.graph.values[argument.id]
            shape = (
                self.polys[argument.id, dim].value(lambda g: counts[g])  # type: ignore[index]
                for dim in range(len(value.shape))
            )
            return _Operand(tuple(shape), value.dtype)
        if isinstance(argument, tuple):
            return tuple(self._argument(item, counts) for item in argument)
        if isinstance(argument, Scalar):
            return float(argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return int(argument)
        return argument


def _part(cells: int, eighths: int) -> int:
    """About so many eighths."""
    part = max(1, round(cells * eighths / 8))
    return part if part < _ALIGNED else min(cells, -(-part // _ALIGNED) * _ALIGNED)


def _placed(given: Any, index: int | None, width: int) -> Any:
    if index is None or not isinstance(given, tuple):
        return width if isinstance(given, int) and not isinstance(given, bool) else given
    if index >= len(given) or not isinstance(given[index], int) or given[index] == -1:
        return given
    return (*given[:index], width, *given[index + 1 :])


def _time(op: str, point: Any, device: str, timed: Timer) -> int | None:
    """Nanoseconds of one call, None if the operator cannot be run by itself."""
    namespace, name, variant = op.split(".")
    args, kwargs = point
    try:
        function = getattr(getattr(getattr(torch.ops, namespace), name), variant)
        made = tuple(_made(arg, device) for arg in args)
        named = {key: _made(arg, device) for key, arg in kwargs}
        return timed(lambda: function(*made, **named))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _made(argument: Any, device: str) -> Any:
    if isinstance(argument, _Operand):
        dtype = getattr(torch, argument.dtype)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.rand(argument.shape, dtype=dtype, device=device)
        return torch.zeros(argument.shape, dtype=dtype, device=device)
    if isinstance(argument, tuple):
        return tuple(_made(item, device) for item in argument)
    return argument
