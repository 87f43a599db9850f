"""The page of a plan: everything a reviewer asks is in it, and nothing in a plan can act there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.cli.report.html import plan_html, short
from planc.cli.report.strips import COLUMNS, strip
from planc.plan.plan import Plan, PlanGroup
from tests.support.strategies import example_plan, plans

PLAN = example_plan()
VOID = {"meta", "rect", "path"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and whether all tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rectangles(path: str) -> Iterator[tuple[int, int, int, int]]:
    """Left, bottom, width and height of each rectangle of a path."""
    for match in re.finditer(r"M(\d+) (\d+)h(\d+)v-(\d+)h-(\d+)z", path):
        left, bottom, width, height, back = map(int, match.groups())
        assert width == back
        yield left, bottom, width, height


@settings(max_examples=50)
@given(plans())
def test_a_page_says_all_of_a_plan(plan: Plan) -> None:
    page = Page(plan_html(plan))
    assert page.open == []
    text = page.text
    assert plan.fingerprint[:16] in text
    for group in plan.groups:
        assert all(str(member) in text for member in group.members)
    for change in plan.attributes:
        assert repr(change.before) in text
    for constraint in plan.constraints:
        assert constraint.reason in text


@settings(max_examples=50)
@given(plans(), plans())
def test_equal_plans_give_equal_pages_and_others_say_how_they_differ(a: Plan, b: Plan) -> None:
    assert plan_html(a, b) == plan_html(a, b)
    equal = "The plans are equal" in Page(plan_html(a, b)).text
    assert equal == (a == b)


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>{{ 1234 * 1234 }}"


def test_what_a_plan_says_is_text_and_nothing_else() -> None:
    entry = replace(PLAN.provenance[0], criterion=HOSTILE)
    groups = tuple(replace(group, mixing=HOSTILE) for group in PLAN.groups)
    hostile = PLAN.replace(groups=groups, provenance=(entry,))
    page = Page(plan_html(hostile, PLAN, title=HOSTILE))
    harmless = Page(plan_html(PLAN, hostile, title="a plan"))
    for found in (page, harmless):
        assert not {tag for tag, _ in found.elements} & {"script", "img", "a", "link", "iframe"}
        assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
        assert str(1234 * 1234) not in found.text
    assert HOSTILE in " ".join(page.words)


def test_a_page_fetches_nothing() -> None:
    page = Page(plan_html(PLAN))
    assert not any({"src", "href"} & set(attrs) for _, attrs in page.elements)
    assert "url(" not in plan_html(PLAN)
    assert "@import" not in plan_html(PLAN)


@given(st.data())
def test_a_strip_has_a_full_column_for_each_unit_that_leaves(data: st.DataObject) -> None:
    rows, cells = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 40))
    units = data.draw(st.sets(st.integers(0, rows * cells - 1)))
    drawn = strip(PlanGroup("g", "features", rows * cells, rows, ()), [("gone", sorted(units))])
    found = set()
    for left, bottom, width, height in rectangles(drawn.paths[0][1]):
        assert height == 8
        row = (bottom + 1) // 9 - 1
        found |= {row * cells + column for column in range(left, left + width)}
    assert found == units


@given(st.integers(COLUMNS + 1, 5000), st.floats(0, 1))
def test_bins_of_a_strip_are_filled_by_the_share_that_leaves(size: int, share: float) -> None:
    units = range(int(size * share))
    drawn = strip(PlanGroup("g", "features", size, 1, ()), [("gone", units)])
    area = sum(width * height for _, _, width, height in rectangles(drawn.paths[0][1]))
    assert drawn.columns == COLUMNS
    assert area / (8 * COLUMNS) == pytest.approx(len(units) / size, abs=2 / COLUMNS)


def test_sets_of_a_strip_stand_on_one_another() -> None:
    size = 4 * COLUMNS
    sets = [("both", range(0, size, 4)), ("gone", range(1, size, 4)), ("other", ())]
    paths = dict(strip(PlanGroup("g", "features", size, 1, ()), sets).paths)
    assert list(rectangles(paths["both"])) == [(0, 8, COLUMNS, 2)]
    assert list(rectangles(paths["gone"])) == [(0, 6, COLUMNS, 2)]
    assert paths["other"] == ""


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (999_499, "999 k"),
        (999_500, "1 M"),
        (4_089_184_256, "4.09 G"),
        (17_563_837_440, "17.6 G"),
        (10**19, "1e+04 P"),
    ],
)
def test_figures_are_short(figure: int, expected: str) -> None:
    assert short(figure) == expected
