"""The page of plans: everything a reviewer asks is in it, and nothing in a plan can act there."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planc
from planc.cli.report.html import plans_html, report
from planc.cli.report.sides import Sides
from planc.errors import PlancError
from planc.plan.plan import OutputChange, Plan
from tests.support.small import build
from tests.support.strategies import example_plan, plans

PLAN = example_plan()
VOID = {"meta", "rect", "path", "line", "wbr", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and whether all tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        kept = self.inside.get(self.open[-1] if self.open else "", self.words)
        kept.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def record(self) -> Any:
        """The details, as the script reads them."""
        return json.loads(self.inside["script"][0])


def page_of(*given: Plan, title: str = "a plan") -> Page:
    return Page(plans_html(given, [title] * len(given)))


@settings(max_examples=25)
@given(plans())
def test_a_page_says_all_of_a_plan(plan: Plan) -> None:
    page = page_of(plan)
    assert page.open == []
    assert plan.fingerprint[:16] in page.text
    record = page.record
    for group, drawn in zip(plan.groups, record["groups"], strict=True):
        assert group.name in page.text
        assert drawn["mixing"] == group.mixing
        members = {
            (record["tensors"][place][0], dim)
            for _, _, found in drawn["nodes"]
            for place, dim in found
        }
        assert members == {(member.tensor, member.dim) for member in group.members}
    names = [f"{c.module}.{c.name}".lstrip(".") for c in plan.attributes]
    assert [line[0] for line in record["attributes"]] == names
    assert [line[2] for line in record["attributes"]] == [repr(c.after) for c in plan.attributes]
    assert {tuple(line) for line in record["constraints"]} == {
        (c.text, c.reason) for c in plan.constraints
    }


@settings(max_examples=25)
@given(plans(), plans())
def test_equal_plans_give_equal_pages_and_others_say_how_they_differ(a: Plan, b: Plan) -> None:
    assert plans_html([a, b], "ab") == plans_html([a, b], "ab")
    assert ("Plans A and B are equal." in page_of(a, b).text) == (a == b)


def test_three_plans_stand_side_by_side() -> None:
    other = PLAN.replace(
        provenance=(replace(PLAN.provenance[0], criterion="another"),),
        groups=(replace(PLAN.groups[0], removed=()), *PLAN.groups[1:]),
    )
    page = Page(plans_html([PLAN, other, PLAN], ["first", "second", "third"], ["1a", "2b", "3c"]))
    assert all(word in page.text for word in ("first", "second", "third", "1a", "2b", "3c"))
    assert f"1 of {len(PLAN.groups)} groups differs." in page.text
    assert "another" in page.text
    assert "Plans A and C are equal." in page.text
    assert all(len(group["sides"]) == 3 for group in page.record["groups"])


def test_a_page_says_what_a_plan_was_computed_from() -> None:
    entry = replace(
        PLAN.provenance[0],
        weights=b"w" * 32,
        origin="factory",
        statistics=b"s" * 32,
        decisions=("keep a.weight:0 1", "remove c.weight:0 0,5"),
    )
    plan = PLAN.replace(
        provenance=(entry,),
        outputs=(OutputChange("", 1, 6, (0, 2, 3, 5)), OutputChange("states.0", 0, 9, (8,))),
    )
    page = page_of(plan)
    assert f"as built by the factory, {(b'w' * 8).hex()}" in page.text
    assert (b"s" * 8).hex() in page.text
    assert "keep a.weight:0 1; remove c.weight:0 0,5" in page.text
    assert "The scores are those of weights as the model's factory built them" in page.text
    assert "The scores of B are those of" in page_of(PLAN, plan).text
    assert "factory" not in page_of(PLAN).text
    assert page.record["outputs"] == [["(the result):1", "6", "4"], ["states.0:0", "9", "1"]]
    assert page_of(PLAN, plan).record["outputs"][1] == ["states.0:0", "9", "9", "1"]


def test_scores_of_a_plan_are_drawn() -> None:
    assert "The plan holds no scores." in page_of(PLAN).text
    scores = np.arange(6, dtype="<f4").tobytes()
    plan = PLAN.replace(groups=(replace(PLAN.groups[0], scores=scores), *PLAN.groups[1:]))
    page = page_of(plan)
    assert "The plan holds no scores." not in page.text
    drawn = page.record["groups"][0]["sides"][0]["scores"]
    assert (drawn["low"], drawn["high"], drawn["over"]) == (0, 5, 2)
    assert "scores" not in page.record["groups"][1]["sides"][0]
    assert "0 of 3 groups differ." in page_of(PLAN, plan).text


def test_macs_by_module_come_from_the_analysis_of_the_model() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, inputs))
    page = Page(report(plan, analysis=analysis))
    assert "Where the parameters and MACs are" in page.text
    assert page.open == []
    before, after = map(sum, zip(*Sides((plan,)).macs(analysis).values(), strict=True))
    assert (before, after) == (plan.cost_before.macs, plan.cost_after.macs)
    with pytest.raises(
        PlancError, match=r"the analysis has \d+ groups and [\d,]+ MACs, plan A 3 groups"
    ):
        report(PLAN, analysis=analysis)
    with pytest.raises(PlancError, match="analysis: expected an analysis, got the class"):
        report(plan, analysis=type(analysis))  # type: ignore[arg-type]


def test_plans_for_different_models_are_said_to_be() -> None:
    other = PLAN.replace(source=replace(PLAN.source, structure=bytes(32)), groups=PLAN.groups[:-1])
    page = page_of(PLAN, other)
    assert "Plans A and B are for different structures" in page.text
    assert page.record["groups"][-1]["sides"][1] is None


def test_at_most_three_plans_fit_a_page() -> None:
    with pytest.raises(PlancError, match="at most 3 plans, got 4"):
        plans_html([PLAN] * 4, "abcd")
    with pytest.raises(PlancError, match="names: expected one for each of 2 plans, got 1"):
        report(PLAN, PLAN, names=["one"])
    with pytest.raises(PlancError, match="other: expected a planc"):
        report(PLAN, "other.planc")  # type: ignore[arg-type]


def test_the_library_writes_the_page_that_it_returns(tmp_path: Path) -> None:
    page = planc.report(PLAN, out=tmp_path / "page.html", names="mine")
    assert (tmp_path / "page.html").read_text() == page
    assert "mine" in Page(page).text
    assert PLAN.fingerprint[:16] in planc.report(PLAN)


HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>{{ 1234 * 1234 }}<!--"


def test_what_a_plan_says_is_text_and_nothing_else() -> None:
    entry = replace(PLAN.provenance[0], criterion=HOSTILE)
    groups = tuple(replace(group, mixing=HOSTILE, kind=HOSTILE) for group in PLAN.groups)
    constraints = tuple(replace(one, reason=HOSTILE) for one in PLAN.constraints)
    hostile = PLAN.replace(groups=groups, provenance=(entry,), constraints=constraints)
    for found in (page_of(hostile, title=HOSTILE), page_of(PLAN, hostile)):
        tags = [tag for tag, _ in found.elements]
        assert tags.count("script") == 2
        assert not set(tags) & {"img", "link", "iframe", "base", "form"}
        assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
        assert not any("style" in attrs for _, attrs in found.elements)
        assert str(1234 * 1234) not in found.text
        assert HOSTILE in found.text
    assert page_of(hostile).record["groups"][0]["mixing"] == HOSTILE


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_arrives_in_the_record_or_is_escaped(text: str) -> None:
    reason = f"a{text}"
    plan = PLAN.replace(groups=(replace(PLAN.groups[0], mixing=reason), *PLAN.groups[1:]))
    found = page_of(plan).record["groups"][0]["mixing"]
    assert found == reason or "\\" in found


def test_the_policy_allows_the_style_and_the_script_of_the_page_alone() -> None:
    text = plans_html([PLAN], ["a plan"])
    page = Page(text)
    policy = next(
        attrs["content"]
        for tag, attrs in page.elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, inside in (("style", page.inside["style"]), ("script", page.inside["script"][1:])):
        digest = b64encode(sha256("".join(inside).encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy


def luminance(color: str) -> float:
    """Relative luminance of a colour such as ``#1a1f26`` or ``#fff`` (WCAG 2.2)."""
    digits = color.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_and_marks_stand_out_in_every_theme() -> None:
    style = "".join(Page(plans_html([PLAN], ["a plan"])).inside["style"])
    themes = re.findall(r"\{\s*color-scheme: (?:light|dark);([^}]*)\}", style)
    assert len(themes) == 4  # light, dark by choice, dark by the system, print
    for theme in themes:
        colors = {name: luminance(value) for name, value in re.findall(r"--(\w+): (#\w+)", theme)}
        least = {"ink": 7.0, "soft": 4.5, "less": 4.5} | dict.fromkeys(
            ("kept", "gone", "plan0", "plan1", "plan2"), 3.0
        )
        for name, contrast in least.items():
            darker, lighter = sorted((colors[name], colors["page"]))
            assert (lighter + 0.05) / (darker + 0.05) >= contrast, (name, theme)


def test_a_page_fetches_nothing() -> None:
    text = plans_html([PLAN], ["a plan"])
    for tag, attrs in Page(text).elements:
        assert not {"src", "srcset", "data", "action"} & set(attrs)
        target = attrs.get("href")
        assert target is None or (tag == "a" and target.startswith("#"))
    for word in ("url(", "@import", "fetch(", "XMLHttpRequest", "innerHTML", "eval("):
        assert word not in text
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
