"""Attempts to record a model: on meta tensors, on fake ones where these do not do, and on real ones
where its control flow needs values. Again where the model needs what earlier runs have left on it,
and with other random numbers where these may steer it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from planc.errors import TraceError
from planc.ir.graph import Graph
from planc.modules.forgetting import Forgetting
from planc.modules.reach import one_at_a_time
from planc.trace.chance import Chance, check_same_path
from planc.trace.decisions import Replay
from planc.trace.record import NEEDS_VALUES, Run, front_end
from planc.trace.values import Kind

_FAKES = logging.getLogger("torch._subclasses.fake_tensor")


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    replay: Replay | None = None,
) -> Graph:
    """Runs a clone of ``model`` and returns what it did; ``model`` itself is never run.

    With ``replay`` it runs on real tensors, and decides as another run did.

    Raises:
        TraceError: the run failed, or other random numbers make it another one; the message names
            the module, the line and the reason.
    """
    forgetting = Forgetting()
    with one_at_a_time:
        try:
            return _sure(model, args, kwargs, forgetting, replay)
        except TraceError:
            if not forgetting.hidden:
                raise
            forgetting.remember()  # it needs what its runs have left
            return _sure(model, args, kwargs, forgetting, replay)


def _sure(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    forgetting: Forgetting,
    replay: Replay | None,
) -> Graph:
    """The graph of a run, which other random numbers would not have made another one."""
    chance = Chance()
    if replay is not None:
        return _Attempt(model, args, kwargs, forgetting, chance, replay).graph("real")
    attempt = _Attempt(model, args, kwargs, forgetting, chance)
    graph = _recorded(attempt)
    check_same_path(graph, chance, lambda other: _recorded(replace(attempt, chance=other)))
    return graph


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """A model and what it is run on, and with."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    forgetting: Forgetting
    chance: Chance
    replay: Replay | None = None

    def graph(self, kind: Kind) -> Graph:
        """The graph of a run that stores again all that it was not shown."""
        while True:
            run = Run(self.model, kind, self.forgetting, self.chance, self.replay)
            graph = run.graph(self.args, self.kwargs)
            if not run.again:
                return graph
            if self.replay is not None:
                self.replay.begin()


def _recorded(attempt: _Attempt) -> Graph:
    """The graph of one run, on tensors without content where that will do."""
    model = attempt.model
    with contextlib.suppress(Exception):  # what really is wrong, the others say better
        return attempt.graph("meta")
    try:
        with _unlogged():
            return attempt.graph("fake")
    except TraceError:
        if any(p.is_meta for p in model.parameters()):
            raise
        return attempt.graph("real")  # where stand-ins may be missing
    except NEEDS_VALUES:
        if any(p.is_meta for p in model.parameters()):
            raise TraceError(
                f"{type(model).__name__}: its control flow depends on the values of tensors, and "
                "its parameters are on the meta device; build it with real ones to trace it"
            ) from None
        return attempt.graph("real")


def again(
    graph: Graph, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Graph | None:
    """Another recorded run of a model, on tensors of the kind that ``graph`` was recorded on; None
    if it fails.
    """
    kinds: dict[str, Kind] = {front_end(kind): kind for kind in ("meta", "fake", "real")}
    if graph.frontend not in kinds:
        return None
    with one_at_a_time, contextlib.suppress(Exception), _unlogged():
        attempt = _Attempt(model, args, kwargs, Forgetting(), Chance())
        return attempt.graph(kinds[graph.frontend])
    return None


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Without torch's log of operators that fail on fake tensors: these are tried on real ones."""
    level = _FAKES.level
    _FAKES.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _FAKES.setLevel(level)
