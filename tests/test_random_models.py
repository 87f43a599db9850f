"""R7: random models, pruned at random and unevenly: proven, restored, saved, loaded; the same bits
as a module, as a state dict and as files. ``tests.scripts.random_models`` takes any number.
"""

from __future__ import annotations

import pytest

from tests.scripts.promises import Goal
from tests.scripts.random_models import check

PARTS = 40
LENGTH = 6


@pytest.mark.long
@pytest.mark.promise("R7 models")
@pytest.mark.parametrize("part", range(PARTS))
def test_random_models_are_proven(part: int, goal: Goal) -> None:
    cases = goal.share(PARTS)
    outcome = check(range(part * cases, (part + 1) * cases), LENGTH)
    assert outcome.wrong == []
    assert outcome.refusals == []
    assert outcome.counts["proven"] >= 0.8 * cases - 2  # the others have nothing to prune
    goal.count(cases)
