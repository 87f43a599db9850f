"""Outputs that may shrink: chosen by name, and listed by the indices that they keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from planc.analysis import Analysis, Gone
from planc.errors import PolicyError
from planc.ir.graph import Graph
from planc.plan.plan import OutputChange, Plan


def with_free_outputs(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the outputs of these names free to shrink.

    A tensor returned in several places is free if all of them are named.
    """
    chosen = set(names)
    named = list(zip(graph.outputs, graph.output_names, strict=False))
    kept = {ref.id for ref, name in named if name not in chosen}
    kept |= {ref.id for ref in graph.outputs[len(named) :]}
    return replace(graph, free=frozenset(ref.id for ref, _ in named if ref.id not in kept))


def free_names(
    graph: Graph, outputs: Sequence[str] | None, free_outputs: Sequence[str]
) -> frozenset[str]:
    """The names of the outputs that may shrink.

    Args:
        outputs: patterns of those that keep their size; None for all that are not in the other.
        free_outputs: patterns of those that may shrink.

    Raises:
        PolicyError: a pattern matches no output, or the two have one in common.
    """
    names = dict.fromkeys(graph.output_names)
    fixed = _matching(names, outputs or (), "outputs")
    free = _matching(names, free_outputs, "free_outputs")
    if both := sorted(fixed & free):
        raise PolicyError(f"output {both[0]!r} is to keep its size and may shrink; choose one")
    return frozenset(names) - fixed if outputs is not None else free


def _matching(names: Iterable[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    found: set[str] = set()
    for pattern in patterns:
        own = {name for name in names if any(fnmatchcase(n, pattern) for n in _around(name))}
        if not own:
            there = ", ".join(name or "''" for name in list(names)[:8]) or "none with a name"
            raise PolicyError(f"{option}: {pattern!r} is no output of the model: it has {there}")
        found |= own
    return frozenset(found)


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def shrinking(analysis: Analysis, gone: Gone) -> tuple[OutputChange, ...]:
    """The free outputs that shrink without the atoms ``gone``, with the indices they keep.

    Where the slices of an output along its first dimension keep different indices, such as the
    states of several layers, each slice is listed under its number.
    """
    found = []
    graph = analysis.graph
    for ref, name in dict(zip(graph.outputs, graph.output_names, strict=False)).items():
        labels = analysis.walked.labels[ref.id]
        for dim, size in enumerate(labels.shape):
            lines = [gone[layer.lines()] for layer in labels.targeting(dim)]
            lost = np.zeros((max(map(len, lines), default=1), size), dtype=bool)
            for own in lines:
                lost |= own
            if lost.any():
                apart = len(lost) > 1
                for i, line in enumerate(lost):
                    at = ".".join(filter(None, (name, str(i)))) if apart else name
                    kept = tuple(np.flatnonzero(~line).tolist())
                    found.append(OutputChange(at, dim - apart, size, kept))
    return tuple(found)


def shrinking_names(graph: Graph, changes: Iterable[OutputChange]) -> frozenset[str]:
    """The names of the outputs that changes are about."""
    names = set(graph.output_names)
    parents = (c.name if c.name in names else c.name.rpartition(".")[0] for c in changes)
    return frozenset(parents)


def freed(graph: Graph, plan: Plan) -> Graph:
    """The graph with the outputs free that shrink in a plan."""
    if not plan.outputs:
        return graph
    return with_free_outputs(graph, shrinking_names(graph, plan.outputs))
