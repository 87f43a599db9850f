"""The laws of plans, on plans compiled from small models that have everything real ones have."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

import planc
from planc.errors import AlreadyApplied, PlancError, StalePlan
from planc.files.formats import encode_plan
from planc.plan.plan import Plan
from tests.programs import write
from tests.scripts.digests import digests
from tests.scripts.promises import Goal
from tests.support import small
from tests.support.proving import randomise
from tests.support.small import MODELS, Inputs, build, contents, several_call, storages

NAMES = list(MODELS)
EXACT = [name for name in NAMES if name not in small.MIXING]
DTYPES = [torch.float64, torch.bfloat16, torch.float16]
TARGETS: list[Any] = ["module", "graph"]
PROCESSES = 20  # that make the same plans


@cache
def compiled(name: str, target: Any = "module") -> tuple[nn.Module, Inputs, Plan]:
    """A model and a plan with uneven random removals."""
    model, inputs = build(name)
    return model, inputs, uneven(model, inputs, target=target)


def uneven(model: nn.Module, inputs: Inputs, seed: int = 1, **options: Any) -> Plan:
    return planc.compile(model, inputs, ratio=0.4, criterion="random", seed=seed, **options)


def outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad():
        result = model(*inputs)
    assert isinstance(result, torch.Tensor)
    return result


def same_state(left: Any, right: Any) -> bool:
    return list(left) == list(right) and all(
        bits(left[name]) == bits(right[name]) and left[name].dtype == right[name].dtype
        for name in left
    )


def bits(tensor: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return tuple(tensor.shape), plain.numpy().tobytes()


# -- determinism -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_equal_inputs_give_equal_bytes(name: str, target: Any) -> None:
    first, again = (planc.compile(*build(name), target=target) for _ in range(2))
    assert encode_plan(first) == encode_plan(again)
    assert (first, hash(first)) == (again, hash(again))


def in_a_process(seed: str, threads: int) -> list[str]:
    """What a fresh process says the digests of some plans are."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scripts.digests", "--threads", str(threads)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.long
@pytest.mark.promise("R10 processes")
@pytest.mark.parametrize("part", range(PROCESSES // 5))
def test_fresh_processes_and_threads_give_equal_bytes(part: int, goal: Goal) -> None:
    first = list(digests())
    assert len(set(first)) == 9
    for number in range(5 * part, 5 * part + 5):
        assert in_a_process("random" if number % 5 == 4 else str(number), 1 + number % 2) == first
    goal.count(5)


def test_the_random_criterion_depends_on_its_seed_alone() -> None:
    model, inputs = build("residual")
    torch.manual_seed(5)
    first = uneven(model, inputs, seed=1)
    np.random.seed(3)
    assert first == uneven(model, inputs, seed=1)
    assert first.groups != uneven(model, inputs, seed=2).groups


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_that_was_saved_is_loaded_as_it_was(name: str, target: Any, tmp_path: Path) -> None:
    _, _, plan = compiled(name, target)
    path = tmp_path / "plan.planc"
    planc.save_plan(plan, path)
    loaded = planc.load_plan(path)
    assert (loaded, hash(loaded)) == (plan, hash(plan))
    assert pickle.loads(pickle.dumps(plan)) == plan


# -- the original ----------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_original_is_left_alone_and_shares_nothing(name: str, target: Any) -> None:
    model, inputs = build(name)
    before, state = contents(model), torch.get_rng_state()
    plan = planc.compile(model, inputs, ratio=0.5, target=target)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    masked = planc.mask(plan, model)
    planc.verify(plan, model, smaller, inputs)
    assert contents(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    kept = {values.untyped_storage().data_ptr() for values in removed.values.values()}
    assert not storages(model) & (storages(smaller) | storages(masked) | kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_that_removes_nothing_gives_an_equal_model(name: str) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0)
    same, removed = planc.apply(plan, model, keep_removed=True)
    assert plan.cost_before == plan.cost_after
    assert plan.attributes == ()
    assert not any(group.removed for group in plan.groups)
    assert removed.values == {}
    assert contents(same) == contents(model)
    assert bits(outputs(same, inputs)) == bits(outputs(model, inputs))
    assert contents(planc.restore(plan, same, removed)) == contents(model)


@pytest.mark.parametrize("options", [{}, {"global_ranking": True}, {"criterion": "random"}])
@pytest.mark.parametrize("target", TARGETS)
def test_a_model_with_nothing_to_remove_stays_whole(target: Any, options: Any) -> None:
    for model in (nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), nn.ReLU()):
        inputs = small.vectors(2, 4)
        plan = planc.compile(model, inputs, target=target, **options)
        assert plan.groups == ()
        smaller = planc.apply(plan, model)
        planc.verify(plan, model, smaller, inputs)
        assert torch.equal(smaller(*inputs), model(*inputs))


# -- composition -----------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_composed_plan_does_what_its_parts_do_in_turn(name: str, target: Any) -> None:
    model, inputs, first = compiled(name, target)
    between = planc.apply(first, model)
    second = uneven(between, inputs, seed=2, target=target)
    smallest = planc.apply(second, between)
    third = uneven(smallest, inputs, seed=3, target=target)
    both = planc.compose(first, second)
    at_once = planc.apply(both, model)
    assert same_result(at_once, smallest, inputs)
    assert both.cost_after == second.cost_after
    left = planc.compose(both, third)
    right = planc.compose(first, planc.compose(second, third))
    assert encode_plan(left) == encode_plan(right)
    assert same_result(planc.apply(left, model), planc.apply(third, smallest), inputs)
    planc.verify(both, model, at_once, inputs)
    planc.verify(left, model, planc.apply(left, model), inputs)


def same_result(left: nn.Module, right: nn.Module, inputs: Inputs) -> bool:
    """Whether two models are equal; of graphs, which number their values anew, all that is seen."""
    if not isinstance(left, fx.GraphModule):
        return contents(left) == contents(right)
    mine, theirs = left.state_dict(), right.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(bits(mine[name]) == bits(theirs[name]) for name in mine)
    return bits(outputs(left, inputs)) == bits(outputs(right, inputs))


@pytest.mark.long
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 20_000), st.sampled_from(TARGETS))
def test_plans_of_random_models_compose(seed: int, target: Any) -> None:
    program = write(seed, 3 + seed % 5)
    model, args = program.model(), program.inputs()
    randomise(model, seed)
    first = uneven(model, args, target=target)
    between = planc.apply(first, model, args=args)
    second = uneven(between, args, seed=2, target=target)
    smallest = planc.apply(second, between, args=args)
    both = planc.compose(first, second)
    at_once = planc.apply(both, model, args=args)
    mine, theirs = at_once.state_dict(), smallest.state_dict()
    assert all(bits(mine[name]) == bits(theirs[name]) for name in mine.keys() | theirs.keys())
    planc.verify(both, model, at_once, args, other_sizes=False, tolerance=1e-3)


class Fixed(nn.Module):
    """Features times constants that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.constants = [torch.linspace(0.5, 2, 8)]
        self.inner = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(self.inner(x)) * self.constants[0])
        return result


def test_what_cuts_a_constant_of_the_original_does_not_compose() -> None:
    model, inputs = Fixed().eval(), small.vectors(2, 6)
    first = planc.compile(model, inputs, target="graph")
    between = planc.apply(first, model)
    second = planc.compile(between, inputs, target="graph")
    assert planc.apply(second, between).get_parameter("first.weight").shape[0] == 4
    with pytest.raises(StalePlan, match=r"first.weight:0 .* cuts captured_\d+.*keep=\"captured_"):
        planc.compose(first, second)
    second = planc.compile(between, inputs, target="graph", keep="captured_*")
    both = planc.compose(first, second)
    planc.verify(both, model, planc.apply(both, model), inputs)


def test_a_graph_plan_for_another_graph_is_stale() -> None:
    _, _, first = compiled("residual", "graph")
    with pytest.raises(StalePlan, match="not made for what the first produces, the tensors differ"):
        planc.compose(first, first)
    other, others, unlike = compiled("dense", "graph")
    with pytest.raises(StalePlan, match=r"tensors differ: .* expected a parameter"):
        planc.compose(first, uneven(planc.apply(unlike, other), others, target="graph"))


def test_heads_then_their_cells_compose() -> None:
    model, inputs = build("attention")
    first = planc.compile(model, inputs, ratio=0, kinds={"heads": 0.5})
    assert [len(g.removed) for g in first.groups if g.kind == "heads"] == [2]
    between = planc.apply(first, model)
    second = planc.compile(between, inputs, ratio=0.4, criterion="random")
    assert any(group.removed for group in second.groups if group.kind == "head_dim")
    both = planc.compose(first, second)
    assert contents(planc.apply(both, model)) == contents(planc.apply(second, between))


# -- the inverse -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_restoring_gives_back_every_bit(name: str) -> None:
    model, _, plan = compiled(name)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    restored = planc.restore(plan, smaller, removed)
    assert contents(restored) == contents(model)
    assert not storages(restored) & (storages(smaller) | storages(model))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_is_treated_as_its_module(name: str, target: Any) -> None:
    model, _, plan = compiled(name, target)
    state = model.state_dict()
    smaller, removed = planc.apply(plan, state, keep_removed=True)
    whole, of_module = planc.apply(plan, model, keep_removed=True)
    expected = whole.state_dict()
    assert type(smaller) is OrderedDict
    assert set(expected) == set(smaller) == set(state)
    assert all(bits(expected[key]) == bits(smaller[key]) for key in expected)
    for values in (removed, of_module):
        assert same_state(planc.restore(plan, smaller, values), state)
        restored = planc.restore(plan, OrderedDict(expected), values)
        assert same_state(restored, OrderedDict((name, state[name]) for name in expected))
    masked = planc.mask(plan, model).state_dict()
    assert same_state(planc.mask(plan, state), masked)


def test_a_graph_is_restored_through_its_state_dict_only() -> None:
    model, _, plan = compiled("residual", "graph")
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    with pytest.raises(PlancError, match=r"restore its state_dict\(\)"):
        planc.restore(plan, smaller, removed)
    fresh = small.randomised(small.Residual(), seed=9)
    fresh.load_state_dict(planc.restore(plan, smaller.state_dict(), removed))
    assert contents(fresh) == contents(model)


# -- types, formats, marks -------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["residual", "grouped", "tied", "attention", "vit"])
def test_every_floating_type_is_pruned_restored_and_verified(name: str, dtype: torch.dtype) -> None:
    model, inputs = build(name, dtype)
    plan = uneven(model, inputs)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    assert {p.dtype for p in smaller.parameters()} == {dtype}
    assert outputs(smaller, inputs).dtype == dtype
    report = planc.verify(plan, model, smaller, inputs)
    if dtype is torch.float64:
        assert report.graph_error < 1e-12
        assert report.error is None or report.error < 1e-12
    assert contents(planc.restore(plan, smaller, removed)) == contents(model)
    sizes = {p.dtype.itemsize for p in model.parameters()}
    assert plan.cost_after.bytes == sizes.pop() * plan.cost_after.params


def test_mixed_types_are_kept_apart() -> None:
    model, inputs = build("residual", torch.bfloat16)
    model.head.float()
    model.head.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    plan = uneven(model, inputs)
    smaller = planc.apply(plan, model)
    assert {name: p.dtype for name, p in model.named_parameters()} == {
        name: p.dtype for name, p in smaller.named_parameters()
    }
    heads = sum(p.numel() for p in smaller.head.parameters())
    assert plan.cost_after.bytes == 2 * (plan.cost_after.params - heads) + 4 * heads
    planc.verify(plan, model, smaller, inputs)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["residual", "grouped", "up"])
def test_channels_last_models_stay_so(name: str, target: Any) -> None:
    model, inputs = build(name)
    model = model.to(memory_format=torch.channels_last)
    inputs = tuple(x.contiguous(memory_format=torch.channels_last) for x in inputs)
    plan = uneven(model, inputs, target=target)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    for parameter in smaller.parameters():
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)
    planc.verify(plan, model, smaller, inputs)
    plain = planc.compile(build(name)[0], build(name)[1], criterion="random", ratio=0.4, seed=1)
    assert plain.groups == plan.groups
    if target == "module":
        assert contents(planc.restore(plan, smaller, removed)) == contents(model)


@pytest.mark.parametrize("target", TARGETS)
def test_frozen_parameters_and_unsaved_buffers_stay_so(target: Any) -> None:
    model, inputs, plan = compiled("shared", target)
    smaller = planc.apply(plan, model)
    assert {n: p.requires_grad for n, p in smaller.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert set(smaller.state_dict()) == set(model.state_dict())
    assert "scale" not in smaller.state_dict()
    assert dict(smaller.named_buffers())["scale"].shape == (5,)
    planc.verify(plan, model, smaller, inputs)


def test_a_module_that_is_called_twice_stays_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(5, 6)
            self.one = nn.Linear(6, 6)
            self.other = self.one
            self.last = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.one(torch.relu(self.first(x))))
            return self.last(torch.relu(self.other(x)))

    model, inputs = small.randomised(Twice()), small.vectors(3, 5)
    plan = planc.compile(model, inputs, ratio=0.5)
    assert plan.cost_after.params < plan.cost_before.params
    smaller = planc.apply(plan, model)
    assert smaller.other is smaller.one
    planc.verify(plan, model, smaller, inputs)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_models_in_training_mode_keep_it(name: str, target: Any) -> None:
    model, inputs = build(name)
    model.train()
    before = contents(model)
    plan = uneven(model, inputs, target=target)
    smaller = planc.apply(plan, model)
    assert smaller.training
    planc.verify(plan, model, smaller, inputs)
    assert contents(model) == before


# -- the specification -----------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_smaller_model_computes_what_the_masked_one_does(
    name: str, target: Any, seed: int
) -> None:
    model, inputs = build(name, torch.float64, seed)
    plan = uneven(model, inputs, seed, target=target)
    assert plan.cost_after.params < plan.cost_before.params
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    expected = outputs(masked, inputs)
    torch.testing.assert_close(outputs(smaller, inputs), expected, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(expected, outputs(model, inputs))


@pytest.mark.parametrize("name", ["vit", "swin"])
@pytest.mark.parametrize("kinds", [{}, {"heads": 0.5}])
def test_heads_and_widths_are_exact_where_the_stream_is_whole(
    name: str, kinds: dict[str, float]
) -> None:
    model, inputs = build(name, torch.float64)
    mixing = [group.name for group in planc.compile(model, inputs, target="graph").groups
              if group.mixing]  # fmt: skip
    plan = uneven(model, inputs, target="graph", keep=mixing, kinds=kinds)
    pruned = {group.kind for group in plan.groups if group.removed}
    assert {"head_dim", "features"} | set(kinds) <= pruned
    expected = outputs(planc.mask(plan, model), inputs)
    smaller = planc.apply(plan, model)
    torch.testing.assert_close(outputs(smaller, inputs), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_the_module_computes_what_its_graph_does(name: str) -> None:
    model, inputs, plan = compiled(name)
    assert planc.verify(plan, model, planc.apply(plan, model), inputs).graph_error < 1e-5


def test_the_groups_of_a_model_do_not_depend_on_the_number_of_images() -> None:
    for name in ("residual", "grouped", "vit", "swin", "shuffle"):
        model, _ = build(name)
        one, three = (planc.compile(model, small.images(n)) for n in (1, 3))
        assert one.source == three.source
        assert one.groups == three.groups
        planc.apply(one, model, args=small.images(3))


# -- stale plans -----------------------------------------------------------------------------


def test_a_plan_for_another_model_is_refused_and_the_first_difference_named() -> None:
    model, _, plan = compiled("residual")
    wider = small.Residual()
    wider.head = nn.Linear(32, 6)
    strided = small.Residual()
    strided.stem[0].stride = (2, 2)
    grown = small.Residual()
    grown.extra = nn.Linear(2, 2)
    for other, difference in (
        (wider, r"head\.weight: expected shape \(5, 32\), found \(6, 32\)"),
        (strided, r"stem\.0: expected stride = \(1, 1\), found \(2, 2\)"),
        (grown, r"extra\.weight: expected no such tensor, found a parameter of \(2, 2\)"),
        (small.Grouped(), r"stem\.0\.weight: expected a parameter of shape .*, found none"),
    ):
        before = contents(other)
        for call in (planc.apply, planc.mask):
            with pytest.raises(StalePlan, match=difference):
                call(plan, other)
        assert contents(other) == before
    state = model.state_dict()
    del state["head.bias"]
    with pytest.raises(StalePlan, match=r"head\.bias: expected a parameter of shape \(5,\)"):
        planc.apply(plan, state)


def test_a_model_whose_groups_have_changed_is_refused() -> None:
    """Tensors, attributes and names agree, but another forward couples them otherwise."""

    class Unlike(small.Shared):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.relu(self.first(x))
            return self.last(self.twice(x) * self.scale)

    Unlike.__qualname__ = small.Shared.__qualname__
    model, inputs = build("shared")
    for target in ("module", "graph"):
        plan = planc.compile(small.randomised(Unlike()), inputs, target=target)  # type: ignore[arg-type]
        before = contents(model)
        with pytest.raises(StalePlan, match=r"expected twice\.weight:0 \(8 features\), found none"):
            planc.apply(plan, model)
        assert contents(model) == before


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_pruned_already_is_not_pruned_again(name: str, target: Any) -> None:
    model, _, plan = compiled(name, target)
    smaller = planc.apply(plan, model)
    for again in (smaller, smaller.state_dict()):
        with pytest.raises(AlreadyApplied, match="these are the shapes of the plan's result"):
            planc.apply(plan, again)


# -- inputs and outputs ----------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_nested_inputs_keywords_and_dataclass_outputs(target: Any) -> None:
    model = small.randomised(small.Several().double())
    args, kwargs = several_call()
    args = (tuple(x.double() for x in args[0]),)
    kwargs["bias"] = kwargs["bias"].double()
    plan = planc.compile(model, args, kwargs, ratio=0.5, target=target)
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    with torch.no_grad():
        found, expected = smaller(*args, **kwargs), masked(*args, **kwargs)
    assert isinstance(found, small.Answer)
    assert found.name == "several"
    torch.testing.assert_close(found.logits, expected.logits)
    assert isinstance(found.hidden["side"], tuple)
    for a, b in zip(found.hidden["side"], expected.hidden["side"], strict=True):
        torch.testing.assert_close(a, b)
    planc.verify(plan, model, smaller, args, kwargs)


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_for_the_validation_can_be_given(target: Any) -> None:
    model, inputs, plan = compiled("residual", target)
    given = planc.apply(plan, model, args=inputs)
    assert contents(given) == contents(planc.apply(plan, model, validate=False))


# -- graphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_trains_as_its_original_would(name: str) -> None:
    model, inputs, plan = compiled(name, "graph")
    smaller = planc.apply(plan, model)
    own = copy.deepcopy(model)
    for module in (own, smaller):
        module(*inputs).square().sum().backward()
    graded = {n for n, p in own.named_parameters() if p.grad is not None}
    assert {n for n, p in smaller.named_parameters() if p.grad is not None} == graded
    assert len(graded) > 2
    before = outputs(smaller, inputs)
    torch.optim.SGD(smaller.parameters(), lr=0.1).step()
    assert not torch.equal(outputs(smaller, inputs), before)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_a_graph_has_the_names_of_the_original(name: str) -> None:
    model, inputs, plan = compiled(name, "graph")
    smaller = planc.apply(plan, model)
    assert set(smaller.state_dict()) == set(model.state_dict())
    for again in (copy.deepcopy(smaller), pickle.loads(pickle.dumps(smaller))):
        assert torch.equal(outputs(again, inputs), outputs(smaller, inputs))
        again.load_state_dict(smaller.state_dict())


def test_gradients_of_a_graph_are_those_of_the_masked_model() -> None:
    model, inputs = build("residual", torch.float64)
    plan = uneven(model, inputs, target="graph")
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    for module in (smaller, masked):
        module(*inputs).square().sum().backward()
    cut = planc.apply(plan, {n: p.grad for n, p in masked.named_parameters()})
    for name, parameter in smaller.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, cut[name])
