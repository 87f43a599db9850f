"""Where a unit's labels end, the operator takes it together with others: nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planc
from planc.analysis import Analysis
from planc.criteria.dead import Units
from planc.ir.graph import Node, Ref, refs
from tests.programs import write
from tests.support.small import MODELS, build

PICKS = {"slice", "select", "narrow", "index", "new_empty"}
"""Operators that leave coordinates out, so that they have no results to label."""


def units_of(analysis: Analysis, units: Units, values: list[Ref]) -> set[int]:
    """The units that label values, without those that are pinned or mixed."""
    found: set[int] = set()
    for ref in values:
        for layer in analysis.walked.labels[ref.id].layers:
            found |= set(np.unique(units.of_atom[layer.atoms]).tolist())
    return {u for u in found if u < len(units.mixing) - 1 and not units.mixing[u]}


def lost(analysis: Analysis, units: Units, node: Node, i: int) -> set[int]:
    """Units that come into a node, are in no result, and have not ended."""
    arguments = list(refs((node.args, node.kwargs_values)))
    results = [ref for ref in node.outputs if ref is not None]
    ending = units.ending(i)
    ended = set() if ending is None else set(np.flatnonzero(ending).tolist())
    incoming = units_of(analysis, units, arguments)
    return (incoming - units_of(analysis, units, results) - ended) if results else set()


def check(analysis: Analysis) -> None:
    units = Units(analysis, "graph")
    for i, node in enumerate(analysis.graph.nodes):
        if node.op.split(".")[1] not in PICKS:
            assert not lost(analysis, units, node, i), str(node)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_labels_of_random_programs_go_on_or_end(seed: int) -> None:
    program = write(seed, length=5)
    check(planc.analyze(planc.trace(program.model(), program.inputs())))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "several"])
def test_labels_of_small_models_go_on_or_end(name: str) -> None:
    model, inputs = build(name)
    check(planc.analyze(planc.trace(model, inputs)))
