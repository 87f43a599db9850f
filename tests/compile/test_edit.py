"""A reviewer's decisions make a new plan: the other groups keep theirs, the constraints hold."""

from __future__ import annotations

from typing import Any

import pytest

import planc
from planc.cli.choices import edited_text
from planc.cli.report.plain import plan_json
from planc.errors import MalformedFile, PolicyError, StalePlan
from planc.files.formats import decode_plan, encode_plan
from planc.plan.plan import Plan
from tests.support.small import MODELS, build

STREAM, FIRST, SECOND = "stem.0.weight:0", "blocks.0.0.weight:0", "blocks.1.0.weight:0"


def removed(plan: Plan) -> dict[str, set[int]]:
    return {group.name: set(group.removed) for group in plan.groups}


def halved() -> tuple[Any, Any, Plan]:
    model, inputs = build("residual")
    return model, inputs, planc.compile(model, inputs, ratio=0.5)


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_an_edit_without_decisions_changes_nothing(name: str, target: Any) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.5, target=target)
    assert planc.edit(plan, model, inputs) == plan


def test_decisions_change_their_groups_alone() -> None:
    model, inputs, plan = halved()
    before = removed(plan)
    new = planc.edit(plan, model, keep={"blocks.0.0": None}, remove={"head:in": [0, 31]})
    assert removed(new) == {STREAM: before[STREAM] | {0, 7}, FIRST: set(), SECOND: before[SECOND]}
    assert new.provenance[0].decisions == (f"remove {STREAM} 0,7", f"keep {FIRST}")
    assert new.provenance[0].policy == plan.provenance[0].policy
    planc.verify(new, model, planc.apply(new, model), inputs)
    assert decode_plan(encode_plan(new)) == new
    again = planc.edit(new, model, keep=STREAM)
    assert again.provenance[0].decisions[2:] == (f"keep {STREAM}",)
    assert removed(again) == {STREAM: set(), FIRST: set(), SECOND: before[SECOND]}


def test_a_kept_unit_comes_back_and_no_other_goes() -> None:
    model, inputs, plan = halved()
    unit = min(removed(plan)[FIRST])
    new = planc.edit(plan, model, inputs, keep={FIRST: [unit]})
    assert removed(new)[FIRST] == removed(plan)[FIRST] - {unit}


@pytest.mark.parametrize(("ratio", "lost"), [(0.0, 0), (0.25, 2), (0.75, 6)])
def test_another_ratio_prefers_the_units_of_the_plan(ratio: float, lost: int) -> None:
    model, inputs, plan = halved()
    new = removed(planc.edit(plan, model, inputs, ratios={"stem": ratio}))
    assert len(new[STREAM]) == lost
    assert new[STREAM] <= removed(plan)[STREAM] or new[STREAM] >= removed(plan)[STREAM]


def test_constraints_hold_after_a_decision() -> None:
    model, inputs = build("vit")
    plan = planc.compile(model, inputs, ratio=0.5)
    for group in plan.groups:
        if group.removed:
            new = planc.edit(plan, model, inputs, keep=group.name)
            assert not removed(new)[group.name]
            planc.apply(new, model)


def test_rows_lose_equally_many_after_a_decision() -> None:
    model, inputs = build("grouped")
    plan = planc.compile(model, inputs, ratio=0.5)
    group = next(group for group in plan.groups if group.rows > 1 and group.removed)
    stays = next(u for u in range(group.cells) if u not in set(group.removed))
    new = planc.edit(plan, model, inputs, remove={group.name: [stays]})
    assert stays in removed(new)[group.name]
    planc.apply(new, model)


def test_impossible_decisions_are_refused() -> None:
    model, _, plan = halved()
    with pytest.raises(PolicyError, match="'stam' matches no group; near misses: stem"):
        planc.edit(plan, model, keep="stam")
    with pytest.raises(PolicyError, match="is to be kept whole, and to lose units"):
        planc.edit(plan, model, keep="stem", remove={"stem": [1]})
    with pytest.raises(StalePlan):
        planc.edit(plan, build("dense")[0])


def test_an_edited_text_makes_a_plan() -> None:
    model, inputs, plan = halved()
    plain = plan_json(plan)
    plain["groups"][0]["removed"] = [1, 6]
    plain["groups"][1]["removed"] = []
    new = edited_text(plain, model, inputs)
    assert removed(new) == {STREAM: {1, 6}, FIRST: set(), SECOND: removed(plan)[SECOND]}
    assert new.provenance[0].decisions == ("removed units as in an edited text (4 units)",)
    planc.verify(new, model, planc.apply(new, model), inputs)
    plain["groups"][0]["removed"] = [99]
    with pytest.raises(PolicyError, match="there is no unit 99"):
        edited_text(plain, model, inputs)
    plain["groups"][0]["name"] = "other"
    with pytest.raises(PolicyError, match="no group 'other'"):
        edited_text(plain, model, inputs)
    with pytest.raises(MalformedFile, match="KeyError: 'groups'"):
        edited_text({}, model, inputs)
