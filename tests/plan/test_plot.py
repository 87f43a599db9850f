"""Pictures of plans show kept and removed units on the axes they are given."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import planc
from planc import PlancError
from planc.plan.plan import Plan
from tests.support.strategies import example_plan

PLAN = example_plan()


@pytest.fixture(autouse=True)
def without_a_display() -> None:
    pytest.importorskip("matplotlib").use("Agg")


def with_scores() -> Plan:
    groups = tuple(
        replace(group, scores=np.arange(group.size, dtype="<f4").tobytes()) for group in PLAN.groups
    )
    return PLAN.replace(groups=groups)


def test_widths_are_bars_of_kept_and_removed_units() -> None:
    axes = planc.plot.widths(PLAN)
    kept, removed = axes.containers
    assert [bar.get_width() for bar in kept] == [group.kept for group in PLAN.groups]
    assert [bar.get_width() for bar in removed] == [len(group.removed) for group in PLAN.groups]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c/heads", "c"]


def test_given_axes_are_drawn_on() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert planc.plot.widths(PLAN, ax=axes) is axes
    assert planc.plot.scores(with_scores(), "a", ax=axes) is axes


def test_scores_are_counted_apart_for_kept_and_removed_units() -> None:
    axes = planc.plot.scores(with_scores(), "a.weight:0")
    counted = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
    assert counted == [PLAN.groups[0].kept, len(PLAN.groups[0].removed)]
    assert axes.get_title() == "a.weight:0"


def test_pictures_that_cannot_be_drawn_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlancError, match="carries no scores"):
        planc.plot.scores(PLAN, "a")
    with pytest.raises(PlancError, match="groups"):
        planc.plot.scores(with_scores(), "*")
    with pytest.raises(PlancError, match="no such group"):
        planc.plot.scores(with_scores(), "nothing")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlancError, match=r"pip install 'planc\[plot\]'"):
        planc.plot.widths(PLAN)
