"""The plan behind a pruned model is found from the tensors of both, and says how sure it is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planc
from planc.compile.alignment import aligned, confidence, distances
from planc.compile.recover import Recovered
from planc.errors import PolicyError
from planc.plan.plan import Plan
from tests.compile.test_history import Rotary
from tests.support.small import MODELS, build

IMAGES = torch.zeros(1, 3, 8, 8)


def pruned(name: str, **options: Any) -> tuple[nn.Module, Any, Plan, nn.Module]:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, criterion="random", **({"ratio": 0.4} | options))
    return model, inputs, plan, planc.apply(plan, model)


def removed(plan: Plan) -> list[tuple[int, ...]]:
    return [tuple(group.removed) for group in plan.groups]


def trained(model: nn.Module, noise: float) -> dict[str, torch.Tensor]:
    """The state of a model after training: every tensor has moved by a share of its spread."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.numel() > 1
        else tensor
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_of_a_pruned_module_is_found_exactly(name: str) -> None:
    model, inputs, plan, smaller = pruned(name)
    found = planc.recover(model, smaller, inputs)
    assert removed(found.plan) == removed(plan)
    assert found.plan.result == plan.result
    assert found.exact
    assert not found.unsure
    assert [group.removed for group in found.groups] == [len(units) for units in removed(plan)]
    assert all(group.confidence == pytest.approx(1) for group in found.groups)


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_of_a_trained_state_dict_is_found(name: str) -> None:
    model, inputs, plan, smaller = pruned(name)
    found = planc.recover(model, trained(smaller, 0.05), inputs)
    assert removed(found.plan) == removed(plan)
    assert not found.exact
    assert not found.unsure
    assert min(group.confidence for group in found.groups) < 1


@pytest.mark.parametrize("kinds", [{"heads": 0.5}, {"heads": 0.5, "head_dim": 0.0}])
def test_whole_heads_are_found_as_heads(kinds: dict[str, float]) -> None:
    model, inputs, plan, smaller = pruned("attention", kinds=kinds)
    found = planc.recover(model, smaller, inputs)
    assert found.exact
    heads = [tuple(g.removed) for g in plan.groups if g.kind == "heads"]
    assert [tuple(g.removed) for g in found.plan.groups if g.kind == "heads"] == heads
    assert any(heads)
    planc.verify(found.plan, model, smaller, inputs)


def test_names_of_wrappers_and_weights_beside_the_module_are_taken() -> None:
    model, inputs, plan, smaller = pruned("residual")
    weights = model.state_dict()
    empty = build("residual")[0].to("meta")
    state = {f"module.{name}": tensor for name, tensor in smaller.state_dict().items()}
    found = planc.recover(empty, state, inputs, weights=weights)
    assert removed(found.plan) == removed(plan)
    assert found.exact


def test_half_precision_is_matched_too() -> None:
    model, inputs, plan, smaller = pruned("vit")
    found = planc.recover(model, smaller.half(), inputs)
    assert removed(found.plan) == removed(plan)
    assert not found.exact
    assert not found.unsure


def test_an_unpruned_model_has_a_plan_that_removes_nothing() -> None:
    model, inputs = build("residual")
    found = planc.recover(model, model, inputs)
    assert found.exact
    assert not any(removed(found.plan))
    assert str(found) == "0 units were removed; the tensors are equal"


def twins() -> tuple[nn.Module, Plan]:
    """Filters 1 and 2 are equal, and so are their biases; filter 1 is removed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[2].weight.transpose(0, 1)):
            tensor[2] = tensor[1]
    return model, planc.compile(model, IMAGES, remove={"0": [1]})


def test_a_unit_that_is_not_unique_is_flagged_or_refused() -> None:
    model, plan = twins()
    smaller = planc.apply(plan, model)
    found = planc.recover(model, smaller, IMAGES)
    assert found.exact
    assert [group.confidence for group in found.unsure] == [0.0]
    assert str(found).splitlines()[1:] == ["0.weight:0: not sure (0.00)"]
    with pytest.raises(PolicyError, match=r"group 0.weight:0: .* 0\.00, least is 0\.5"):
        planc.recover(model, smaller, IMAGES, least=0.5)


def test_a_reader_tells_equal_filters_apart() -> None:
    model, _ = twins()
    with torch.no_grad():
        model[2].weight.normal_()
    plan = planc.compile(model, IMAGES, remove={"0": [1]})
    found = planc.recover(model, planc.apply(plan, model), IMAGES)
    assert removed(found.plan) == removed(plan)
    assert found.exact
    assert not found.unsure


def test_another_model_of_the_same_shapes_is_unsure_everywhere() -> None:
    model, inputs, _, smaller = pruned("residual")
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
    found = planc.recover(model, smaller, inputs)
    assert not found.exact
    assert len(found.unsure) == sum(map(bool, removed(found.plan)))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "head.bias",
            lambda t: t[:3],
            r": head.bias: expected shape \(5,\), found \(3,\)",
        ),
        (
            "stem.0.weight",
            lambda t: t[:, :2],
            r"stem.0.weight:1 has 3 indices, in pruned 2; no plan",
        ),
        ("stem.1.weight", lambda t: t[:2], "dimensions of pruned that shrink together differ"),
        ("blocks.0.0.weight", lambda t: t[0], r"blocks.0.0.weight: of shape"),
        ("head.weight", lambda t: t[:, :-1], "no result of a plan for the original: "),
        ("blocks.1.0.weight", None, "pruned has no tensor blocks.1.0.weight"),
    ],
)
def test_what_no_plan_gives_is_refused(name: str, change: Any, said: str) -> None:
    model, inputs, _, smaller = pruned("residual")
    state = dict(smaller.state_dict())
    state[name] = change(state[name]) if change else None
    with pytest.raises(PolicyError, match=said):
        planc.recover(model, {n: t for n, t in state.items() if t is not None}, inputs)


def test_tensors_without_values_are_refused() -> None:
    model, inputs, _, smaller = pruned("residual")
    with pytest.raises(PolicyError, match=r"pruned: .* is on the meta device; load"):
        planc.recover(model, copy.deepcopy(smaller).to("meta"), inputs)
    with torch.no_grad():
        for tensor in (*model.state_dict().values(), *smaller.state_dict().values()):
            tensor.zero_()
    with pytest.raises(PolicyError, match="no tensor tells its units apart"):
        planc.recover(model, smaller, inputs)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_alignment_finds_the_slices_that_were_kept(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    kept = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    values = np.random.default_rng(data.draw(st.integers(0, 99)))
    before = values.standard_normal((count, 6)).astype(np.float32)
    costs = distances([(before[kept], before)])
    assert costs is not None
    assert aligned(costs, np.zeros(count, dtype=bool)).tolist() == kept
    others = np.setdiff1d(np.arange(count), kept)
    assert confidence(costs, np.array(kept), others) == 1


def test_alignment_keeps_fixed_slices_and_the_order() -> None:
    costs = np.array([[9.0, 1.0, 0.0, 4.0], [9.0, 4.0, 1.0, 0.0]])
    assert aligned(costs, np.zeros(4, dtype=bool)).tolist() == [2, 3]
    assert aligned(costs, np.array([True, False, False, False])).tolist() == [0, 3]
    crossed = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert aligned(crossed, np.zeros(2, dtype=bool)).tolist() == [0, 1]


def test_confidence_compares_with_the_nearest_removed_slice() -> None:
    costs = np.array([[1.0, 8.0, 4.0], [9.0, 0.0, 2.0]])
    assert confidence(costs, np.array([0, 1]), np.array([2])) == 0.75
    assert confidence(costs, np.array([0, 1]), np.array([], dtype=np.int64)) == 1
    assert confidence(np.zeros((1, 2)), np.array([0]), np.array([1])) == 0
    assert distances([(np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float32))]) is None


def test_the_result_is_taken_as_a_plan() -> None:
    model, inputs, plan, smaller = pruned("depthwise")
    found = planc.recover(model, smaller, inputs)
    assert isinstance(found, Recovered)
    again = planc.apply(found, model)  # type: ignore[call-overload]
    assert planc.verify(found.plan, model, again, inputs)
    assert not planc.diff(found.plan, plan).groups


def test_heads_that_share_their_cells_are_found() -> None:
    torch.manual_seed(0)
    model, tokens = Rotary().eval(), torch.randn(2, 5, 6)
    for options in ({"ratio": 0.25}, {"ratio": 0.0, "kinds": {"heads": 0.5}}):
        plan = planc.compile(model, tokens, **options)
        found = planc.recover(model, planc.apply(plan, model), tokens)
        assert removed(found.plan) == removed(plan)
        assert found.exact
