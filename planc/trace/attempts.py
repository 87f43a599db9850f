"""Attempts to record a model: on meta tensors, then on fake tensors, then on real ones if control
flow needs values.

A run is repeated if the model needs state left by earlier runs, and with other random numbers if
these may steer it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    """Run a clone of ``model`` and return its graph; ``model`` itself is never run.

    With ``replay`` the clone runs on real tensors and repeats the decisions of another run.

    Raises:
        TraceError: the run failed, or its operators depend on random numbers; the message names the
            module, the line and the reason.
    """
    attempt = _Attempt(model, args, kwargs, Forgetting(), replay)
    with one_at_a_time:  # after an error again, because a model may need state of earlier runs
        return attempt.forgetting.repeated(lambda: _sure(attempt), TraceError)


def _sure(attempt: _Attempt) -> Graph:
    """The graph of a run, checked to be independent of random numbers."""
    chance = Chance()
    if attempt.replay is not None:
        return attempt.graph("real", chance)
    graph = _recorded(attempt, chance)
    check_same_path(graph, chance, lambda other: _recorded(attempt, other))
    return graph


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """A model with its arguments and the settings of a run."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    forgetting: Forgetting
    replay: Replay | None = None

    def graph(self, kind: Kind, chance: Chance) -> Graph:
        """The graph of a run in which all hidden state was stored again."""

        def once() -> Graph:
            if self.replay is not None:
                self.replay.begin()
            run = Run(self.model, kind, self.forgetting, chance, self.replay)
            return run.graph(self.args, self.kwargs)

        return self.forgetting.repeated(once)


def _recorded(attempt: _Attempt, chance: Chance) -> Graph:
    """The graph of one run, on tensors without content if possible."""
    model = attempt.model
    with contextlib.suppress(Exception):  # the fake and real runs report the error more precisely
        return attempt.graph("meta", chance)
    try:
        with _unlogged():
            return attempt.graph("fake", chance)
    except TraceError:
        if any(p.is_meta for p in model.parameters()):
            raise
        return attempt.graph("real", chance)  # stand-ins may be missing on the others
    except NEEDS_VALUES:
        if any(p.is_meta for p in model.parameters()):
            raise TraceError(
                f"{type(model).__name__}: its control flow depends on the values of tensors, and "
                "its parameters are on the meta device; build it with real ones to trace it"
            ) from None
        return attempt.graph("real", chance)


def again(
    graph: Graph, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Graph | None:
    """Record another run, on the kind of tensors used for ``graph``; None if the run fails."""
    kinds: dict[str, Kind] = {front_end(kind): kind for kind in ("meta", "fake", "real")}
    kind = kinds[graph.frontend]
    quiet = _unlogged() if kind == "fake" else contextlib.nullcontext()
    with one_at_a_time, contextlib.suppress(Exception), quiet:
        return _Attempt(model, args, kwargs, Forgetting()).graph(kind, Chance())
    return None


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Silence torch's log of operators failing on fake tensors; real tensors are tried next."""
    level = _FAKES.level
    _FAKES.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _FAKES.setLevel(level)
