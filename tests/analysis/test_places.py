"""Places say of every index of every parameter which units it leaves with, as the members do."""

from __future__ import annotations

import numpy as np
import pytest

import planc
from planc.analysis.places import NOWHERE
from planc.ir.groups import Run
from tests.support.small import MODELS, build


@pytest.mark.parametrize("name", MODELS)
def test_places_hold_what_the_members_of_all_groups_hold(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    found = set()
    for place in analysis.places.places:
        tensor = analysis.graph.tensors[place.tensor]
        width = tensor.shape[place.dim]
        for at in np.flatnonzero(place.units != NOWHERE).tolist():
            key = (tensor.name, place.dim, at // width, at % width, int(place.units[at]))
            assert key not in found, "an index leaves with a unit through one place only"
            found.add(key)
    expected = set()
    starts = analysis.places.offsets.tolist()
    for start, group in zip(starts, analysis.groups, strict=False):
        for member in group.members:
            if analysis.graph.tensor(member.tensor).kind == "parameter":
                over = member.over
                block = 0 if over is None else over.start // (over.stop - over.start)
                for unit, index in zip(*map(np.ndarray.tolist, member.expand()), strict=True):
                    expected.add((member.tensor, member.dim, block, index, start + unit))
    assert found == expected


def test_pairs_count_the_indices_that_a_unit_has_in_a_dimension() -> None:
    model, inputs = build("dense")  # where a channel is flattened into four features
    analysis = planc.analyze(planc.trace(model, inputs))
    pairs, places = analysis.places.pairs, analysis.places.places
    assert (np.diff(pairs.unit) >= 0).all()
    for unit, place, length in zip(pairs.unit, pairs.place, pairs.lengths, strict=True):
        own = places[place]
        flattened = analysis.graph.tensors[own.tensor].name == "head.weight"
        assert length == (own.units == unit).sum() == (4 if flattened else 1)


@pytest.mark.parametrize(
    "run",
    [
        Run(0, 5, 2, 3),
        Run(2, 3, 0, 4, span=2),
        Run(1, 4, 7, 2, span=1, repeats=3, stride=10),
        Run(3, 2, 0, 49, span=7, repeats=2, stride=14),
    ],
)
def test_the_indices_of_chosen_units_are_those_that_expanding_gives(run: Run) -> None:
    drawn = np.random.default_rng(0)
    for _ in range(20):
        chosen = drawn.random(8) < 0.5
        units, indices = run.expand()
        np.testing.assert_array_equal(run.indices(chosen), indices[chosen[units]])
