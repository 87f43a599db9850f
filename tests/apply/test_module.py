"""Applying, masking and restoring whole modules and state dicts: the argument is only read, the
result is a module like it, and nothing is ever half applied.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from planc.apply import Removed, mask, restore
from planc.apply import apply as apply_and_validate
from planc.errors import AlreadyApplied, MalformedFile, PlancError, StalePlan
from planc.ir.groups import Member
from planc.modules.tables import modules_of, tensors_of
from planc.modules.tree import owned_tensors
from planc.plan.plan import CLASS, AttributeChange, Plan
from planc.trace import trace
from tests.apply.hand_made import (
    ConvNet,
    GroupedNet,
    TiedNet,
    conv_plan,
    group,
    grouped_plan,
    plan_for,
    run,
    tied_plan,
)

apply: Any = partial(apply_and_validate, validate=False)  # hand-made plans predict no shapes
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TOKENS = torch.arange(10).reshape(2, 5)
CASES: dict[str, tuple[type[nn.Module], Callable[[nn.Module], Plan], torch.Tensor]] = {
    "dense": (ConvNet, conv_plan, IMAGES),
    "ragged": (GroupedNet, grouped_plan, IMAGES),
    "tied": (TiedNet, tied_plan, TOKENS),
}

Case = tuple[nn.Module, Plan, torch.Tensor]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return built(request.param)


def built(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """A model with weights of which none is like another, its plan and an input."""
    kind, make_plan, inputs = CASES[name]
    torch.manual_seed(0)
    model = kind().to(dtype).eval()
    if isinstance(model, TiedNet):
        model.seen = model.embed.weight.detach()  # which to() has left behind
    with torch.no_grad():
        for owned in owned_tensors(model):
            if owned.tensor.is_floating_point():
                owned.tensor.uniform_(0.5, 1.5)
    return model, make_plan(model), inputs.to(dtype) if inputs.is_floating_point() else inputs


def contents(model: nn.Module) -> dict[str, Any]:
    """Every tensor, bit for bit, and every structural attribute of a model."""
    held: dict[str, Any] = {
        owned.names[0]: owned.tensor.detach()
        .clone(memory_format=torch.contiguous_format)
        .reshape(-1)
        .view(torch.uint8)
        .tolist()
        for owned in owned_tensors(model)
    }
    held["tensors"], held["modules"] = tensors_of(model), modules_of(model)
    return held


def storages(tensors: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def all_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Everything in memory that hangs on the modules: parameters, buffers, plain attributes."""
    found = [owned.tensor for owned in owned_tensors(model)]
    for module in model.modules():
        found += [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
    return found


def test_the_smaller_model_computes_what_the_masked_one_does(case: Case) -> None:
    model, plan, inputs = case
    smaller, masked = apply(plan, model), mask(plan, model)
    torch.testing.assert_close(smaller(inputs), masked(inputs), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(masked(inputs), model(inputs))


def test_the_original_is_left_as_it_was_and_shares_nothing(case: Case) -> None:
    model, plan, _ = case
    before = contents(model)
    smaller, removed = apply(plan, model, keep_removed=True)
    results = [smaller, mask(plan, model), restore(plan, smaller, removed)]
    assert contents(model) == before
    groups = [storages(all_tensors(result)) for result in [model, *results]]
    groups.append(storages(removed.values.values()))
    assert len(set().union(*groups)) == sum(map(len, groups))


def test_restoring_is_exact(case: Case) -> None:
    model, plan, _ = case
    restored = restore(plan, *apply(plan, model, keep_removed=True))
    assert contents(restored) == contents(model)
    assert restored.state_dict().keys() == model.state_dict().keys()


def test_restoring_a_trained_model_keeps_what_it_learned(case: Case) -> None:
    model, plan, _ = case
    smaller, removed = apply(plan, model, keep_removed=True)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter += 1
    restored = restore(plan, smaller, removed)
    assert contents(apply(plan, restored)) == contents(smaller)
    gone = mask(plan, model)
    for name, parameter in restored.named_parameters():
        was_removed = gone.get_parameter(name) == 0
        original = model.get_parameter(name)
        assert torch.equal(parameter[was_removed], original[was_removed])


def test_the_smaller_shapes_and_attributes_are_those_of_the_plan() -> None:
    model, plan, _ = built("dense")
    smaller = apply(plan, model)
    assert type(smaller) is ConvNet
    assert smaller.second.weight.shape == (4, 5, 3, 3)
    assert smaller.head.weight.shape == (5, 16)
    assert smaller.norm.running_mean.shape == (5,)
    assert (smaller.second.in_channels, smaller.second.out_channels) == (5, 4)
    assert (model.second.in_channels, model.second.out_channels) == (8, 6)
    assert torch.equal(smaller.first.bias, model.first.bias[[1, 3, 4, 6, 7]])


def test_each_convolution_group_loses_its_own_channels() -> None:
    model, plan, _ = built("ragged")
    whole, small = model.grouped.weight, apply(plan, model).grouped.weight
    assert torch.equal(small[:2], whole[:2][:, [0, 2, 3]])
    assert torch.equal(small[2:], whole[2:][:, [0, 1, 3]])


def test_tied_tensors_stay_one() -> None:
    model, plan, _ = built("tied")
    for result in (apply(plan, model), mask(plan, model)):
        assert result.out.weight is result.embed.weight
        assert result.seen is not result.embed.weight
        assert result.seen.data_ptr() == result.embed.weight.data_ptr()
        assert torch.equal(result.seen, result.embed.weight)
        assert not result.seen.requires_grad


def test_parameters_on_one_storage_stay_on_one() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Parameter(torch.randn(4, 3))
            self.right = nn.Parameter(self.left.data)

    model = Halves()
    members = [Member("left", 0, run(4)), Member("right", 0, run(4))]
    smaller, removed = apply(
        plan := plan_for(model, [group("left:0", 4, [1], *members)]), model, keep_removed=True
    )
    assert smaller.left.data_ptr() == smaller.right.data_ptr()
    restored = restore(plan, smaller, removed)
    assert restored.left.data_ptr() == restored.right.data_ptr()
    assert contents(restored) == contents(model)

    one_of_them = plan_for(model, [group("left:0", 4, [1], members[0])])
    parted = apply(one_of_them, model)
    assert (parted.left.shape, parted.right.shape) == ((3, 3), (4, 3))


class Marked(nn.Parameter):
    """A parameter class whose constructor wants more than other parameters do."""

    def __new__(cls, data: torch.Tensor, *, label: str) -> Marked:
        made = torch.Tensor._make_subclass(cls, data, True)
        made.label = label
        return made


def test_parameters_keep_class_marks_and_requires_grad_but_not_gradients() -> None:
    model, _, _ = built("dense")
    model.first.weight = Marked(model.first.weight.data, label="first")
    model.first.bias.requires_grad_(False)
    model.second.weight._no_weight_decay = True
    model.norm.register_buffer("running_mean", model.norm.running_mean, persistent=False)
    plan = conv_plan(model)
    model(IMAGES.double()).sum().backward()
    for result in (apply(plan, model), mask(plan, model)):
        assert type(result.first.weight) is Marked
        assert result.first.weight.label == "first"
        assert result.second.weight._no_weight_decay
        assert type(result.second.weight) is nn.Parameter
        for name, parameter in result.named_parameters():
            assert parameter.requires_grad == (name != "first.bias")
            assert parameter.grad is None
        assert "norm.running_mean" not in result.state_dict()
        assert "norm.running_var" in result.state_dict()
        assert "scratch" not in result.state_dict()
    assert model.second.weight.grad is not None


def test_the_smaller_model_trains(case: Case) -> None:
    model, plan, inputs = case
    smaller = apply(plan, model.train())
    assert all(module.training for module in smaller.modules())
    optimiser = torch.optim.SGD(smaller.parameters(), lr=0.1)
    before = contents(smaller)
    smaller(inputs).square().mean().backward()
    optimiser.step()
    assert contents(smaller) != before


def test_hooks_and_modes_come_along() -> None:
    model, plan, inputs = built("dense")
    calls: list[nn.Module] = []
    model.first.register_forward_hook(lambda module, args, result: calls.append(module))
    model.norm.train()
    smaller = apply(plan, model)
    smaller(inputs)
    assert calls == [smaller.first]
    assert [module.training for module in smaller.modules()] == [
        module.training for module in model.modules()
    ]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_results_are_trainable_in_whatever_mode_they_are_made(mode: Any) -> None:
    model, plan, inputs = built("dense")
    with mode():
        smaller, removed = apply(plan, model, keep_removed=True)
        restored = restore(plan, smaller, removed)
    for result in (smaller, restored):
        assert not any(owned.tensor.is_inference() for owned in owned_tensors(result))
        assert all(parameter.is_leaf for parameter in result.parameters())
        result(inputs).sum().backward()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_old_style_weight_norm_is_carried_over() -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 2))
    model(torch.randn(1, 4))
    members = [Member(name, 0, run(6)) for name in ("0.bias", "0.weight_g", "0.weight_v")]
    members.append(Member("1.weight", 1, run(6)))
    changes = [
        AttributeChange("0", "out_features", 6, 4),
        AttributeChange("1", "in_features", 6, 4),
    ]
    plan = plan_for(model, [group("0.bias:0", 6, [2, 3], *members)], changes)
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(apply(plan, model)(inputs), mask_by_hand(model)(inputs))


def mask_by_hand(model: nn.Module) -> nn.Module:
    copied = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    weight = torch._weight_norm(model[0].weight_v, model[0].weight_g)
    copied.load_state_dict(
        {
            "0.weight": weight,
            "0.bias": model[0].bias,
            "1.weight": model[1].weight,
            "1.bias": model[1].bias,
        }
    )
    with torch.no_grad():
        copied[1].weight[:, [2, 3]] = 0
    return copied


def test_parametrized_and_recurrent_modules_are_rebuilt() -> None:
    torch.manual_seed(0)
    spectral = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    recurrent = nn.LSTM(6, 5, batch_first=True)
    model = nn.Sequential(spectral, recurrent)
    weight = "0.parametrizations.weight.original"
    members = [Member(name, 0, run(6)) for name in ("0.bias", f"{weight}0", f"{weight}1")]
    members.append(Member("1.weight_ih_l0", 1, run(6)))
    changes = [AttributeChange("0", "out_features", 6, 4), AttributeChange("1", "input_size", 6, 4)]
    plan = plan_for(model, [group("0.bias:0", 6, [2, 3], *members)], changes)
    inputs = torch.randn(2, 3, 4)
    smaller = apply(plan, model)
    assert all(
        a is b for a, b in zip(smaller[1]._flat_weights, smaller[1].parameters(), strict=True)
    )
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent[1].weight_ih_l0[:, [2, 3]] = 0
    torch.testing.assert_close(smaller(inputs)[0], silent(inputs)[0])


def test_channels_last_models_stay_so() -> None:
    model, plan, _ = built("dense")
    model = model.to(memory_format=torch.channels_last)
    smaller, removed = apply(plan, model, keep_removed=True)
    for result in (smaller, mask(plan, model), restore(plan, smaller, removed)):
        for name in ("first", "second"):
            weight = result.get_submodule(name).weight
            assert weight.is_contiguous(memory_format=torch.channels_last)
            assert not weight.is_contiguous()


def test_models_on_the_meta_device_are_applied_by_shape(case: Case) -> None:
    model, plan, _ = case
    with torch.device("meta"):
        empty = type(model)()
    smaller, removed = apply(plan, empty, keep_removed=True)
    assert tensors_of(smaller) == tensors_of(apply(plan, model))
    assert modules_of(smaller) == modules_of(apply(plan, model))
    assert tensors_of(restore(plan, smaller, removed)) == plan.tensors
    assert all(owned.tensor.is_meta for owned in owned_tensors(mask(plan, empty)))


def test_a_plan_that_removes_nothing_gives_an_equal_model(case: Case) -> None:
    model, _, _ = case
    plan = plan_for(model, [])
    smaller, removed = apply(plan, model, keep_removed=True)
    assert contents(smaller) == contents(model) == contents(restore(plan, smaller, removed))
    assert not removed.values


# -- refusals --------------------------------------------------------------------------------


def test_another_model_is_refused_and_the_difference_named(case: Case) -> None:
    model, plan, _ = case
    smaller, removed = apply(plan, model, keep_removed=True)
    other = nn.Sequential(nn.Linear(2, 2))
    for refused in (apply, mask):
        with pytest.raises(AlreadyApplied):
            refused(plan, smaller)
        with pytest.raises(StalePlan, match="expected"):
            refused(plan, other)
        with pytest.raises(StalePlan, match="expected"):
            refused(plan, other.state_dict())
    for whole in (model, model.state_dict(), other, other.state_dict()):
        with pytest.raises(StalePlan, match="expected"):
            restore(plan, whole, removed)


def test_restoring_without_the_right_values_is_refused(case: Case) -> None:
    model, plan, _ = case
    smaller, removed = apply(plan, model, keep_removed=True)
    name = next(iter(removed.values))
    lacking = {key: value for key, value in removed.values.items() if key != name}
    for values in (lacking, {**lacking, name: torch.zeros(0, dtype=torch.float64)}):
        with pytest.raises(StalePlan):
            restore(plan, smaller, Removed(values))
        with pytest.raises(StalePlan):
            restore(plan, smaller.state_dict(), Removed(values))


def test_a_hostile_attribute_leaves_the_model_as_it_was() -> None:
    model, plan, _ = built("dense")
    before = contents(model)
    hostile = plan.replace(
        attributes=(*plan.attributes, AttributeChange("head", "__class__", 8, 4))
    )
    with pytest.raises(MalformedFile):
        apply(hostile, model)
    assert contents(model) == before


@pytest.mark.parametrize("target", [None, 3, "model.pt", [torch.zeros(1)], nn.Linear])
def test_other_targets_are_refused_by_name(target: Any) -> None:
    _, plan, _ = built("dense")
    for call in (
        lambda: apply(plan, target),
        lambda: mask(plan, target),
        lambda: restore(plan, target, Removed({})),
    ):
        with pytest.raises(PlancError, match=type(target).__name__):
            call()


def test_a_class_that_does_not_copy_itself_is_refused() -> None:
    class Single(ConvNet):
        def __deepcopy__(self, memo: dict[int, object]) -> Single:
            return self

    class Whole(ConvNet):
        def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
            copied = ConvNet()
            copied.load_state_dict(self.state_dict())
            return copied

    for kind in (Single, Whole):
        model = kind()
        before = contents(model)
        with pytest.raises(PlancError, match="does not copy itself truly"):
            apply(conv_plan(model).replace(attributes=()), model)
        assert contents(model) == before


# -- state dicts -----------------------------------------------------------------------------


def test_a_state_dict_is_cut_as_its_module_is(case: Case) -> None:
    model, plan, _ = case
    state = model.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    for changed, expected in (
        (apply(plan, state), apply(plan, model).state_dict()),
        (mask(plan, state), mask(plan, model).state_dict()),
    ):
        assert type(changed) is OrderedDict
        assert changed._metadata == expected._metadata
        assert changed._metadata is not state._metadata
        assert list(changed) == list(expected)
        for name, tensor in expected.items():
            assert torch.equal(changed[name], tensor)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    apply(plan, model).load_state_dict(apply(plan, state))


def test_a_state_dict_is_restored_exactly(case: Case) -> None:
    model, plan, _ = case
    state = dict(model.state_dict())
    smaller, removed = apply(plan, state, keep_removed=True)
    assert type(smaller) is dict
    restored = restore(plan, smaller, removed)
    assert list(restored) == list(state)
    assert all(torch.equal(restored[name], tensor) for name, tensor in state.items())
    made = [smaller.values(), restored.values(), removed.values.values(), state.values()]
    counts = [storages(tensors) for tensors in made]
    assert len(set().union(*counts)) == sum(map(len, counts))


def test_modules_and_state_dicts_exchange_their_removed_values(case: Case) -> None:
    model, plan, _ = case
    smaller, removed = apply(plan, model, keep_removed=True)
    state = restore(plan, smaller.state_dict(), removed)
    model.load_state_dict(state)  # strict: every name is there
    whole = {owned.names[0]: owned.tensor for owned in owned_tensors(model)}
    _, from_state = apply(plan, whole, keep_removed=True)
    assert contents(restore(plan, smaller, from_state)) == contents(model)


def test_tied_names_of_a_state_dict_share_the_result() -> None:
    model, plan, _ = built("tied")
    state = model.state_dict()
    smaller, removed = apply(plan, state, keep_removed=True)
    for result in (smaller, mask(plan, state), restore(plan, smaller, removed)):
        assert result["out.weight"].data_ptr() == result["embed.weight"].data_ptr()
    assert list(removed.values) == ["embed.weight", "mix.weight"]
    del state["embed.weight"]  # as safetensors writes it
    alone, removed = apply(plan, state, keep_removed=True)
    assert torch.equal(alone["out.weight"], smaller["out.weight"])
    assert torch.equal(restore(plan, alone, removed)["out.weight"], state["out.weight"])
    assert contents(restore(plan, apply(plan, model), removed)) == contents(model)


def test_tied_names_with_values_of_their_own_are_kept_apart() -> None:
    model, plan, _ = built("tied")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["out.weight"] += 1
    smaller, removed = apply(plan, state, keep_removed=True)
    restored = restore(plan, smaller, removed)
    assert all(torch.equal(restored[name], tensor) for name, tensor in state.items())


def test_entries_that_are_no_tensors_are_copied() -> None:
    class WithState(ConvNet):
        def get_extra_state(self) -> dict[str, list[int]]:
            return {"steps": [1, 2]}

        def set_extra_state(self, state: Any) -> None:
            self.extra = state

    model = WithState()
    plan = conv_plan(model)
    state = model.state_dict()
    smaller = apply(plan, state)
    assert smaller["_extra_state"] == {"steps": [1, 2]}
    assert smaller["_extra_state"] is not state["_extra_state"]
    state["_extra_state"] = torch.zeros(3)
    assert torch.equal(apply(plan, state)["_extra_state"], torch.zeros(3))


# -- laws over random plans ------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 7), max_size=7),
    st.sets(st.integers(0, 5), max_size=5),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_random_removals_apply_as_they_mask_and_restore_exactly(
    first: set[int], second: set[int], dtype: torch.dtype
) -> None:
    model, plan, inputs = built("dense", dtype)
    with torch.no_grad():
        model.first.weight.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -0.0])
    groups = [
        replace(whole, removed=tuple(sorted(units)))
        for whole, units in zip(plan.groups, (first, second), strict=True)
    ]
    kept_first, kept_second = 8 - len(first), 6 - len(second)
    widths = {
        ("first", "out_channels"): kept_first,
        ("norm", "num_features"): kept_first,
        ("second", "in_channels"): kept_first,
        ("second", "out_channels"): kept_second,
        ("head", "in_features"): 4 * kept_second,
    }
    changes = tuple(
        AttributeChange(c.module, c.name, c.before, widths[c.module, c.name])
        for c in plan.attributes
    )
    plan = plan_for(model, groups, changes)
    smaller, removed = apply(plan, model, keep_removed=True)
    assert contents(restore(plan, smaller, removed)) == contents(model)
    if dtype is torch.float64 and 0 in first:  # the channel with the NaN is gone
        masked = mask(plan, model)
        torch.testing.assert_close(smaller(inputs), masked(inputs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [ConvNet, GroupedNet, TiedNet])
def test_the_tables_agree_with_those_of_a_trace(kind: type[nn.Module]) -> None:
    model = kind()
    graph = trace(model, (TOKENS if kind is TiedNet else IMAGES,))
    assert [(t.names, t.shape, t.kind) for t in graph.tensors] == [
        (spec.names, spec.shape, spec.kind) for spec in tensors_of(model)
    ]
    assert [
        (m.path, sorted({**m.attributes, CLASS: m.kind}.items())) for m in graph.modules.values()
    ] == [(spec.path, list(spec.attributes)) for spec in modules_of(model)]
