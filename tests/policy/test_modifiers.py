"""Policies made of others: groups that stay whole, floors, and widths that are round numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.criteria import Magnitude
from planc.errors import PlancWarning, PolicyError
from planc.plan.plan import Plan
from planc.policy import Capped, Equal, Floor, Global, Keep, Only, Policy, Rounded, Uniform
from tests.support.small import MODELS, build


def pruned(plan: Plan) -> set[str]:
    return {group.name for group in plan.groups if group.removed}


# -- patterns --------------------------------------------------------------------------------


def test_keep_prevails_over_only() -> None:
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


@pytest.mark.long
@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("to", [2, 4, 3])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "dense"])
def test_shrinking_dimensions_are_multiples(name: str, to: int, target: Any) -> None:
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"floor": 9}, r"^floor\(\.\.\., 9\): every group stays whole"),
        ({"round_to": 64}, r"^rounded\(\.\.\., 64\): every group stays whole"),
        ({"keep": "*"}, r"^keep\(\.\.\., \*\): every group stays whole"),
        (
            {"keep": "blocks.*", "floor": 8},
            r"^keep\(\.\.\., blocks\.\*\): every group stays whole",
        ),
        (
            {"keep": "blocks.0.0*", "only": "blocks.*.0", "floor": 4},
            r"^keep\(\.\.\., blocks\.0\.0\*\) together with floor\(\.\.\., 4\) together with only",
        ),
    ],
)
def test_modifiers_with_nothing_left_to_remove_are_named(
    options: dict[str, Any], said: str
) -> None:
    model, inputs = build("residual")
    with pytest.warns(PlancWarning, match=said) as warned:
        plan = planc.compile(model, inputs, ratio=0.5, **options)
    assert not pruned(plan)
    assert "the largest, stem.0.weight:0, has 8 units" in str(warned[0].message)


@pytest.mark.filterwarnings("error::planc.errors.PlancWarning")
def test_a_small_ratio_without_removals_is_accepted() -> None:
    model, inputs = build("residual")
    assert not pruned(planc.compile(model, inputs, ratio=0.01, round_to=4))
    assert pruned(planc.compile(model, inputs, ratio=0.5, floor=7))
    plan = planc.compile(model, inputs, ratio=0.01)
    assert not pruned(plan)


def test_policies_name_their_parts() -> None:
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


# -- caps and equal widths -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_no_group_loses_more_than_the_cap(name: str) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.8, cap=0.3, global_ranking=True)
    for group in plan.groups:
        assert len(group.removed) <= 0.3 * group.size + 1e-9
    with pytest.raises(PolicyError, match="largest ratio 1 is not in"):
        planc.compile(model, inputs, cap=1)


class Stack(nn.Module):
    """Three layers alike on one stream, and one of other surroundings."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}) for _ in range(3)
        )
        self.other = nn.Linear(8, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer["down"](torch.relu(layer["up"](x)))
        return self.head(self.other(x))


@pytest.mark.parametrize("options", [{"ratio": 0.4}, {"macs": 0.5}, {"params": 0.3}])
def test_similar_layers_keep_equally_many(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    model, inputs = Stack().eval(), (torch.randn(2, 8),)
    found = []
    for equal in (False, True):
        plan = planc.compile(
            model, inputs, ranking="global", criterion="random", equal=equal, **options
        )  # type: ignore[call-overload]
        kept = {group.name: group.kept for group in plan.groups}
        found.append([kept[f"layers.{i}.up.weight:0"] for i in range(3)])
        planc.verify(plan, model, planc.apply(plan, model), inputs)
    assert len(set(found[0])) > 1
    assert len(set(found[1])) == 1


def test_similar_layers_keep_equally_many_heads() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=4, patch_size=2, num_layers=3, num_heads=4, hidden_dim=16, mlp_dim=12
    ).eval()
    images, found = torch.randn(1, 3, 4, 4), []
    for equal in (False, True):
        plan = planc.compile(
            model, images, ranking="global", rows="heads", criterion="random", ratio=0.5,
            only="*self_attention", equal=equal, target="graph",
        )  # fmt: skip
        found.append([group.kept for group in plan.groups if group.kind == "heads"])
        planc.verify(plan, model, planc.apply(plan, model), images)
    assert len(set(found[0])) > 1
    assert len(set(found[1])) == 1


def test_equal_widths_apply_to_matching_groups_only() -> None:
    model, inputs = Stack().eval(), (torch.randn(2, 8),)
    analysis = planc.analyze(planc.trace(model, inputs))
    names = [group.name for group in analysis.groups]
    kept = np.array([{"layers.0.up.weight:0": 3}.get(name, 7) for name in names])
    for patterns, least in (((), 7), (("layers.[12]",), 3), (("layers.[01].up",), 7)):
        raised = Equal(Uniform(), patterns).raising(analysis)(kept)
        assert raised[names.index("layers.0.up.weight:0")] == least


def test_modifiers_hold_in_any_order() -> None:
    model, inputs = build("vit")
    analysis = planc.analyze(planc.trace(model, inputs))
    scores = planc.score(analysis, model, Magnitude(2))
    for policies in (
        [lambda p: Rounded(p, 4), lambda p: Floor(p, 3), lambda p: Capped(p, 0.6), Equal],
        [lambda p: Keep(p, ("*mlp*",)), lambda p: Rounded(p, 2), lambda p: Floor(p, 3)],
    ):
        found = set()
        for wishes in itertools.permutations(policies):
            policy: Policy = Global(0.7)
            for wish in wishes:
                policy = wish(policy)
            plan = planc.select(analysis, scores, policy)
            found.add(tuple(group.removed for group in plan.groups))
        assert len(found) == 1


# -- rounding of what is joined --------------------------------------------------------------------


class Joined(nn.Module):
    """Three widths side by side, one of them odd, beside channels of the input that never go."""

    def __init__(self, image: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(4, n, 1) for n in (16, 12, 16))
        self.after = nn.Conv2d(44 + 4 * image, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)
        self.image = image

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [part(x) for part in self.parts] + [x] * self.image
        return self.head(self.after(torch.cat(made, 1)))


@pytest.mark.parametrize("image", [False, True])
def test_concatenated_dimensions_and_their_parts_are_multiples(image: bool) -> None:
    model, inputs = Joined(image).eval(), (torch.randn(1, 4, 3, 3),)
    pruned_joins = 0
    for ratio in (0.1, 0.3, 0.4, 0.5, 0.8):
        plan = planc.compile(model, inputs, ratio=ratio, round_to=8)
        for cut in plan.cuts.values():
            assert all(kept is None or len(kept) % 8 == 0 for kept in cut.kept)
        pruned_joins += (
            "after.weight" in plan.cuts and plan.cuts["after.weight"].kept[1] is not None
        )
        planc.verify(plan, model, planc.apply(plan, model), inputs)
    assert bool(pruned_joins) == (not image)  # 4 channels that stay make no multiple of 8


def test_the_channels_inside_a_group_of_a_convolution_are_multiples() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=2), nn.Conv2d(32, 4, 1)
    ).eval()
    inputs = (torch.randn(1, 3, 5, 5),)
    for ratio, inside in ((0.4, 16), (0.5, 8)):  # 10 of the 16 in each group are no multiple
        plan = planc.compile(model, inputs, ratio=ratio, round_to=8)
        smaller = planc.apply(plan, model)
        assert smaller[1].weight.shape[1] == inside
