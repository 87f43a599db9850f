"""Policies made of others: groups that stay whole, floors, and widths that are round numbers."""

from __future__ import annotations

from typing import Any

import pytest

import planc
from planc.errors import PolicyError
from planc.plan import Plan
from planc.policy import Floor, Global, Keep, Only, Rounded, Uniform
from tests.small import MODELS, build


def pruned(plan: Plan) -> set[str]:
    return {group.name for group in plan.groups if group.removed}


# -- patterns --------------------------------------------------------------------------------


def test_a_kept_group_is_named_by_itself_a_tensor_or_a_module() -> None:
    model, inputs = build("residual")
    everything = {"stem.0.weight:0", "blocks.0.0.weight:0", "blocks.1.0.weight:0"}
    for pattern, kept in (
        ("stem.0.weight:0", {"stem.0.weight:0"}),
        ("stem", {"stem.0.weight:0"}),
        ("head", {"stem.0.weight:0"}),  # its input is the stream
        ("blocks.?.1.running_mean", {"blocks.0.0.weight:0", "blocks.1.0.weight:0"}),
        ("blocks.1.1", {"blocks.1.0.weight:0"}),
        ("blocks*", everything),
    ):
        assert pruned(planc.compile(model, inputs, keep=[pattern])) == everything - kept
        assert pruned(planc.compile(model, inputs, only=[pattern])) == kept
    assert pruned(planc.compile(model, inputs, keep=["stem.0.weight:0", "blocks.0.1"])) == {
        "blocks.1.0.weight:0"
    }


def test_a_group_that_is_kept_and_meant_to_shrink_stays_whole() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, keep=["blocks.0.1"], only=["blocks.?.1"])
    assert pruned(plan) == {"blocks.1.0.weight:0"}


def test_a_pattern_that_matches_nothing_is_refused_with_the_near_misses() -> None:
    model, inputs = build("residual")
    for options in ({"keep": ["block.0.0.weight:0"]}, {"only": ["block.0.0.weight:0"]}):
        with pytest.raises(PolicyError) as refusal:
            planc.compile(model, inputs, **options)  # type: ignore[arg-type]
        said = str(refusal.value)
        assert "pattern 'block.0.0.weight:0' matches no group" in said
        assert "near misses: blocks.0.0.weight:0" in said
    with pytest.raises(PolicyError, match=r"'Stem\*' matches no group"):
        planc.compile(model, inputs, keep=["Stem*"])


# -- floors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [1, 3, 5, 100])
@pytest.mark.parametrize("name", ["residual", "grouped", "attention", "vit", "shuffle"])
def test_a_floor_is_kept_in_every_group(name: str, floor: int) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.99, floor=floor)
    for group in plan.groups:
        assert group.kept >= min(floor, group.size)


def test_a_floor_below_one_is_refused() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match="floor 0 is below 1"):
        planc.compile(model, inputs, floor=0)


# -- rounding --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("to", [2, 4, 3])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "dense"])
def test_every_dimension_that_shrinks_is_a_multiple(name: str, to: int, target: Any) -> None:
    model, inputs = build(name)
    for ratio, global_ranking in ((0.3, False), (0.6, False), (0.5, True)):
        plan = planc.compile(
            model, inputs, ratio=ratio, round_to=to, target=target, global_ranking=global_ranking
        )
        for tensor, cut in plan.cuts.items():
            for dim, kept in enumerate(cut.kept):
                if kept is not None:
                    assert len(kept) % to == 0, (tensor, dim)
        planc.apply(plan, model)


def test_concatenated_groups_are_multiples_one_by_one() -> None:
    model, inputs = build("dense")
    plan = planc.compile(model, inputs, ratio=0.5, round_to=2)
    assert [group.kept for group in plan.groups] == [4, 2, 2]


def test_rounding_never_removes_more() -> None:
    for name in ("residual", "grouped", "vit"):
        model, inputs = build(name)
        plain = planc.compile(model, inputs, ratio=0.5)
        rounded = planc.compile(model, inputs, ratio=0.5, round_to=4)
        for a, b in zip(plain.groups, rounded.groups, strict=True):
            assert set(b.removed) <= set(a.removed)


def test_round_to_below_one_is_refused() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match="round_to 0 is below 1"):
        planc.compile(model, inputs, round_to=0)


# -- composition -----------------------------------------------------------------------------


def test_policies_say_what_they_are_made_of() -> None:
    policy = Keep(Rounded(Floor(Only(Uniform(0.5, (("heads", 0.25),)), ("a*",)), 2), 8), ("b", "c"))
    assert str(policy) == "keep(rounded(floor(only(uniform(0.5, heads=0.25), a*), 2), 8), b, c)"
    assert str(Global(0.5)) == "global(0.5)"


def test_the_plan_records_its_policy_criterion_and_seed() -> None:
    model, inputs = build("residual")
    plan = planc.compile(
        model, inputs, ratio=0.25, keep=["stem"], round_to=2, floor=2, criterion="l1", seed=7
    )
    (made,) = plan.provenance
    assert (made.criterion, made.seed) == ("l1", 7)
    assert made.policy == "keep(rounded(floor(uniform(0.25), 2), 2), stem)"
    assert dict(made.versions).keys() == {"planc", "torch"}
