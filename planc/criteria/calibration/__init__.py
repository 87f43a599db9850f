"""Calibration: collect the :class:`planc.criteria.Statistics` of a criterion on batches.

One pass over the batches; only sums are kept. The batches run through a copy of the model with
shared parameters, so the model itself keeps its gradients, hooks, buffers and mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from planc.criteria import Criterion, Statistics, named
from planc.criteria.calibration.collect import Collector
from planc.criteria.calibration.ranks import rank, together
from planc.criteria.scores import broken
from planc.criteria.statistics import INPUTS, needs_of
from planc.errors import CalibrationError, PolicyError
from planc.modules.given import module
from planc.plan.arguments import a_flag, function_of, optional, takes
from planc.trace.unfused import unfused

__all__ = ["Loss", "calibrate"]

Loss = Callable[[nn.Module, Any], torch.Tensor]
Item = TypeVar("Item")


@takes(model=module, loss=optional(function_of("model", "batch")), progress=a_flag)
def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    criterion: str | Criterion | Sequence[str | Criterion],
    loss: Loss | None = None,
    *,
    progress: bool = True,
) -> Statistics:
    """Collect the statistics of a criterion.

    The model runs as it is, in train or eval mode. Criteria of whole units by batch ("taylor_unit")
    analyse it as the loss first calls it. If ``torch.distributed`` is initialized, each process
    passes batches of its own and all return the same sums, to the bit.

    Args:
        model: the model; it stays unchanged.
        batches: any iterable; only sums of a batch are kept.
        criterion: a name or a function (see :mod:`planc.criteria`), or several.
        loss: called as ``loss(model, batch)`` with the model to run and one of ``batches``; returns
            the loss, a tensor of one number. Criteria without gradients need no loss: the batch, a
            tensor or a tuple of arguments, is then passed to the model.
        progress: show a progress bar if standard error is a terminal.

    Raises:
        PolicyError: the criterion needs no statistics, or gradients without a ``loss``.
        CalibrationError: there are no batches; the model, its analysis or the loss fails on a batch
            (names it); the loss is not one finite number; a gradient is not finite (names the
            parameter).
    """
    several: Any = criterion if isinstance(criterion, list | tuple) else [criterion]
    scorers = [named(one) for one in several]
    try:
        iter(batches)
    except TypeError:
        raise CalibrationError(
            f"batches is of type {type(batches).__name__}: give a data loader, a list of batches, "
            "or any other iterable"
        ) from None
    needs = tuple(dict.fromkeys(need for one in scorers for need in needs_of(one)))
    wanted = ", ".join(map(str, scorers)) or "no criterion"
    if not needs:
        raise PolicyError(f"{wanted} needs no statistics: score or compile with it as it is")
    by_gradient = set(needs) - {INPUTS}
    if loss is None and by_gradient:
        raise PolicyError(
            f"{wanted} needs {', '.join(sorted(by_gradient))} of a loss: pass loss=, a function of "
            "the model and a batch"
        )
    error: CalibrationError | None = None
    collector = Collector(model, needs, loss)
    try:
        with _undisturbed(model):
            for i, batch in enumerate(_shown(batches, progress and rank() == 0)):
                collector.add(i, batch)
    except CalibrationError as found:
        error = found
    count, tensors = together(collector.batches, collector.sums, error)
    if not count:
        raise CalibrationError("there are no batches: give at least one")
    statistics = Statistics(count, needs, tensors)
    for name, tensor in statistics.broken():
        raise CalibrationError(
            f"the {broken(name, tensor)}; check the batches, the loss and the model's weights"
        )
    return statistics


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Preserve the random state; replace fused kernels, because they hide the weights' inputs."""
    devices = sorted(
        {t.device.index for t in model.parameters() if t.is_cuda and t.device.index is not None}
    )
    with unfused(), torch.random.fork_rng(devices=devices):
        yield


def _shown(batches: Iterable[Item], visible: bool) -> Iterator[Item]:
    """The batches, with a progress bar on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    total = len(batches) if isinstance(batches, Sized) else None
    hidden = not (visible and console.is_terminal)
    yield from track(batches, "Calibrating", total, console=console, disable=hidden, transient=True)
