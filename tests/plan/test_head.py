"""The head of a plan: its savings in figures, in notebooks and on the page."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from hypothesis import given, settings

from planc.plan.head import change, counted, head_html, lead
from planc.plan.plan import Cost, Plan
from tests.support.strategies import example_plan, plans

PLAN = example_plan().replace(
    cost_before=Cost(4_089_184_256, 25_557_032, 102_228_128),
    cost_after=Cost(1_050_000_000, 6_900_000, 27_600_000),
)


def text(markup: str) -> str:
    """The text of an element; its markup must be well-formed."""
    return " ".join(" ".join(ElementTree.fromstring(markup).itertext()).split())


def test_counts_keep_their_digits_below_a_million() -> None:
    assert counted(11_456) == "11,456"
    assert counted(2_500_000) == "2.50 M"


def test_changes_are_in_percent() -> None:
    assert change(200, 54) == "−73 %"
    assert change(100, 110) == "+10 %"
    assert change(5, 5) == "–"
    assert change(0, 5) == "–"


def test_the_head_shows_figures_before_and_after() -> None:
    found = text(head_html(PLAN))
    assert "Parameters 25.6 M → 6.9 M −73 %" in found
    assert "MACs of the example run 4.09 G → 1.05 G −74 %" in found
    assert "Size of the parameters 102 MB → 28 MB −73 %" in found


def test_heads_of_several_plans_are_lettered() -> None:
    other = PLAN.replace(cost_after=PLAN.cost_before)
    assert "Parameters 25.6 M → A 6.9 M −73 % B 25.6 M –" in text(head_html(PLAN, other))


@settings(max_examples=25)
@given(plans())
def test_the_lead_counts_units(plan: Plan) -> None:
    removed = sum(len(group.removed) for group in plan.groups)
    assert lead(plan).endswith(f": {removed:,} removed")
    assert lead(plan) in text(f"<div>{plan._repr_html_()}</div>")


def test_a_notebook_shows_texts_of_a_plan_as_text() -> None:
    hostile = PLAN.replace(
        groups=tuple(replace(group, kind="<img src=x>\u202e") for group in PLAN.groups)
    )
    found = hostile._repr_html_()
    assert "<img" not in found
    assert "\u202e" not in found
    assert "style=" not in found
