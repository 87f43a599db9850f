"""Blocks are removed whole; the rest computes as the original that skips them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planc
from planc.errors import AlreadyApplied, PlancError, PolicyError, StalePlan, VerificationError
from planc.files.formats import encode_plan
from planc.plan.plan import Plan
from tests.support.blocks import Block, Choosy, Outside, Scaled, Stack, Taps, inputs, sequential


def lists(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {group.name: tuple(group.removed) for group in plan.groups if group.kind == "blocks"}


def skipping(model: nn.Module, paths: list[str], args: Any) -> Any:
    """The outputs of a copy whose blocks at ``paths`` return what they are given."""
    copied = copy.deepcopy(model)
    for path in paths:
        copied.get_submodule(path).register_forward_hook(lambda _, given, __: given[0])
    with torch.no_grad():
        return copied(*args)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return list(states[0]) == list(states[1]) and all(
        torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True)
    )


kinds = st.sampled_from(["pre", "post", "relu"])


@pytest.mark.long
@given(st.integers(2, 5), kinds, st.booleans(), st.data())
@settings(max_examples=6, deadline=None)
def test_the_laws_of_plans_hold_for_blocks(
    count: int, kind: str, by_count: bool, data: st.DataObject
) -> None:
    torch.manual_seed(count)
    model, args = Stack(count, kind, by_count=by_count).eval(), inputs()
    units = st.lists(st.integers(0, count - 1), min_size=1, max_size=count - 1, unique=True)
    gone = sorted(data.draw(units))
    plan = planc.compile(model, args, remove={"blocks": gone})
    assert lists(plan) == {"blocks": tuple(gone)}
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    with torch.no_grad():
        expected = skipping(model, [f"blocks.{unit}" for unit in gone], args)
        assert torch.equal(smaller(*args), expected)
    assert [block.layer_idx for block in smaller.blocks] == list(range(count - len(gone)))
    assert same_state(planc.restore(plan, smaller, removed), model)
    state, values = planc.apply(plan, model.state_dict(), keep_removed=True)
    assert all(torch.equal(value, smaller.state_dict()[name]) for name, value in state.items())
    back = planc.restore(plan, state, values)
    assert list(back) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.items())
    if kind == "post":
        with pytest.raises(PlancError, match="zeros are no mask"):
            planc.mask(plan, model)
    else:
        with torch.no_grad():
            assert torch.allclose(planc.mask(plan, model)(*args), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["pre", "post", "relu"])
def test_verify_proves_the_removal(kind: str) -> None:
    model, args = Stack(4, kind).eval(), inputs()
    plan = planc.compile(model, args, kinds={"blocks": 0.25})
    report = planc.verify(plan, model, planc.apply(plan, model), args, other_sizes=False)
    assert "1 blocks removed" in report.checks[0]
    assert ("with them zero" in report.checks[1]) == (kind != "post")


def test_a_share_removes_the_blocks_of_the_smallest_norm() -> None:
    model = Stack(4).eval()
    with torch.no_grad():
        for parameter in model.blocks[2].parameters():
            parameter.mul_(0.1)
    plan = planc.compile(model, inputs(), kinds={"blocks": 0.25})
    assert lists(plan) == {"blocks": (2,)}
    kept = planc.compile(model, inputs(), kinds={"blocks": 0.25}, keep="blocks.2")
    assert lists(kept)["blocks"] != (2,)
    assert lists(planc.compile(model, inputs(), kinds={"blocks": 0.25}, criterion="random"))


def test_the_same_request_gives_the_same_bytes_and_no_request_none() -> None:
    model, args = Stack().eval(), inputs()
    one, other = (planc.compile(model, args, kinds={"blocks": 0.5}) for _ in range(2))
    assert encode_plan(one) == encode_plan(other)
    plain = planc.compile(model, args, ratio=0.5)
    assert "removed blocks" not in plain.requires
    assert not lists(plain)


def test_widths_are_those_of_the_shallower_model() -> None:
    model, args = Stack(4).eval(), inputs()
    plan = planc.compile(model, args, kinds={"blocks": 0.5}, ratio=0.5)
    shallow = planc.compile(model, args, kinds={"blocks": 0.5})
    smaller = planc.apply(plan, model)
    first = planc.apply(shallow, model)
    second = planc.compile(first, args, ratio=0.5)
    assert same_state(smaller, planc.apply(second, first))
    planc.verify(plan, model, smaller, args, other_sizes=False)
    assert planc.compose(shallow, second).groups == plan.groups


def test_a_budget_counts_the_removed_blocks() -> None:
    model, args = Stack(4).eval(), inputs()
    plan = planc.compile(model, args, kinds={"blocks": 0.5}, params=0.4)
    assert plan.cost_after.params <= 0.4 * plan.cost_before.params
    smaller = planc.apply(plan, model)
    assert plan.cost_after.params == sum(p.numel() for p in smaller.parameters())


def test_plans_with_blocks_compose_in_any_order() -> None:
    model, args = Stack(5).eval(), inputs()
    width = planc.compile(model, args, ratio=0.5)
    thin = planc.apply(width, model)
    some = planc.compile(thin, args, remove={"blocks": [0, 3]})
    less = planc.apply(some, thin)
    more = planc.compile(less, args, remove={"blocks": [1]})
    last = planc.apply(more, less)
    whole = planc.compose(planc.compose(width, some), more)
    assert whole == planc.compose(width, planc.compose(some, more))
    assert lists(whole) == {"blocks": (0, 2, 3)}
    assert same_state(planc.apply(whole, model), last)
    planc.verify(whole, model, last, args, other_sizes=False)
    assert [group.name for group in planc.diff(width, width).groups] == []
    assert "blocks" in {group.name for group in planc.diff(some, more).groups}


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_a_model_that_is_a_list_loses_blocks_and_keeps_its_ends(kind: str) -> None:
    model, args = sequential(4, kind).eval(), inputs()
    plan = planc.compile(model, args, remove={".": [3, 4]})
    smaller = planc.apply(plan, model)
    assert lists(plan) == {".": (3, 4)}
    assert [type(part) for part in smaller] == [nn.Linear, nn.ReLU, Block, Block, nn.Linear]
    with torch.no_grad():
        assert torch.equal(smaller(*args), skipping(model, ["3", "4"], args))


def test_names_with_numbers_stay_consecutive_and_others_are_kept() -> None:
    args = inputs()
    numbered = nn.Sequential(OrderedDict((f"layer_{i}", Block(3, 5, i)) for i in range(3))).eval()
    plan = planc.compile(numbered, args, remove={".": [0]})
    assert list(planc.apply(plan, numbered)._modules) == ["layer_0", "layer_1"]
    named = nn.Sequential(OrderedDict((name, Block(3, 5, 0)) for name in ("a", "b", "c"))).eval()
    plan = planc.compile(named, args, remove={".": [1]})
    assert list(planc.apply(plan, named)._modules) == ["a", "c"]


@pytest.mark.parametrize(
    ("model", "units", "reason"),
    [
        (Taps(4), [1], "other results|cannot be removed|is not a value|read outside|operators"),
        (Choosy(4), [1], "does not compute the rest as before"),
        (Scaled(4), [1], "does not compute the rest as before"),
        (Outside(4), [1], "no list of blocks|no ModuleList|matches no group|means several groups"),
        (Stack(4), [0, 1, 2, 3], "all blocks of blocks"),
        (Stack(4), [7], "blocks 0 to 3"),
        (Stack(4), [True], "blocks 0 to 3"),
        (sequential(), [0], "cannot be removed"),
    ],
)
def test_what_cannot_go_is_refused_with_the_reason(
    model: nn.Module, units: list[int], reason: str
) -> None:
    path = "." if isinstance(model, nn.Sequential) else "blocks"
    with pytest.raises(PolicyError, match=reason):
        planc.compile(model.eval(), inputs(), remove={path: units})


def test_requests_that_cannot_be_met_are_refused() -> None:
    model, args = Stack(3).eval(), inputs()
    for options, reason in [
        ({"kinds": {"blocks": 0.1}}, "no block would be removed"),
        ({"kinds": {"blocks": 1.5}}, "not in"),
        ({"kinds": {"blocks": 0.5}, "target": "graph"}, "a graph has none"),
        ({"kinds": {"blocks": 0.5}, "keep": "*.2.up"}, "after a wildcard"),
    ]:
        with pytest.raises(PolicyError, match=reason):
            planc.compile(model, args, **options)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="no ModuleList or Sequential"):
        planc.compile(nn.Linear(3, 2), args, kinds={"blocks": 0.5})
    with pytest.raises(PolicyError, match="meta device"):
        planc.compile(Stack(3).eval().to("meta"), args, kinds={"blocks": 0.5})


def test_a_plan_of_blocks_is_stale_for_another_depth_and_applied_once() -> None:
    model, args = Stack(4).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    with pytest.raises(StalePlan):
        planc.apply(plan, Stack(5))
    for target in (smaller, smaller.state_dict()):
        with pytest.raises(AlreadyApplied):
            planc.apply(plan, target)
    with pytest.raises(StalePlan, match="removed block is missing"):
        planc.restore(plan, smaller, planc.apply(plan, model.state_dict(), keep_removed=True)[1])
    with pytest.raises(PlancError, match="edit: the plan removes blocks"):
        planc.edit(plan, model, args, keep="stem")
    assert removed.blocks.keys() == {"blocks.1"}


def test_verify_finds_a_wrong_block() -> None:
    model, args = Stack(4).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    other = planc.apply(planc.compile(model, args, remove={"blocks": [2]}), model)
    with pytest.raises(VerificationError, match="its values are not the kept ones"):
        planc.verify(plan, model, other, args)


def test_checkpoints_and_files_follow(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, args = Stack(4, inner=5).eval(), inputs()
    plan = planc.compile(model, args, kinds={"blocks": 0.5}, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save_plan(plan, tmp_path / "p.planc")
    assert planc.load_plan(tmp_path / "p.planc") == plan
    planc.save(tmp_path / "saved", smaller, plan)
    assert same_state(planc.load(tmp_path / "saved", Stack(4, inner=5).eval()), smaller)
    assert same_state(planc.load(tmp_path / "saved", smaller, mode="verify"), smaller)
    assert same_state(planc.load(tmp_path / "saved", Stack(4, inner=5).eval().to("meta")), smaller)
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    planc.apply_files(plan, tmp_path / "whole.safetensors", tmp_path / "cut.safetensors")
    found = load_file(tmp_path / "cut.safetensors")
    assert found.keys() == smaller.state_dict().keys()
    assert all(torch.equal(value, smaller.state_dict()[name]) for name, value in found.items())
    with pytest.raises(PlancError, match="keep_removed: the plan removes blocks"):
        planc.apply_files(
            plan,
            tmp_path / "whole.safetensors",
            tmp_path / "again.safetensors",
            keep_removed=tmp_path / "removed",
        )
