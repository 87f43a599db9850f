"""Plans keep small integer inputs, so that apply and verify run by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planc
from planc.errors import MalformedFile, PolicyError, VerificationError
from planc.files.formats import decode_plan, encode_plan
from planc.plan.specification import (
    INPUT_VALUES,
    MOST_OF_ALL,
    MOST_OF_ONE,
    features,
    kept_values,
    without_precision,
    without_values,
)
from planc.policy.latency.clock import Timer
from tests.support.small import Inputs


class Packed(nn.Module):
    """Sequences with their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 12)
        self.rnn = nn.GRU(12, 16, batch_first=True)
        self.out = nn.Linear(16, 5)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(ids), lengths, batch_first=True, enforce_sorted=False
        )
        padded, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        result: torch.Tensor = self.out(padded)
        return result


class Spread(nn.Module):
    """Features for the marked places, which must be as many."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.features = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 8))

    def forward(self, *, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        places = (ids == 5).nonzero()
        if len(places) != len(pixels):
            raise ValueError(f"{len(places)} places for {len(pixels)} features")
        found = self.embed(ids)
        found[places[:, 0], places[:, 1]] = self.features(pixels)
        return found


class Averaged(nn.Module):
    """A mean over the elements that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu()
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        result: torch.Tensor = self.second((hidden * weights).sum(1) / weights.sum(1))
        return result


def packed() -> tuple[nn.Module, Inputs, dict[str, Any]]:
    torch.manual_seed(0)
    return Packed().eval(), (torch.randint(40, (3, 7)), torch.tensor([7, 3, 5])), {}


def spread() -> tuple[nn.Module, None, dict[str, Any]]:
    torch.manual_seed(0)
    ids = torch.tensor([[1, 5, 5, 2], [5, 0, 0, 3]])
    return Spread().eval(), None, {"ids": ids, "pixels": torch.randn(3, 6)}


def averaged() -> tuple[nn.Module, Inputs, dict[str, Any]]:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    return Averaged().eval(), (torch.randn(2, 4, 6),), {"mask": mask}


CASES = (packed, spread, averaged)


@pytest.mark.parametrize("build", CASES)
def test_a_model_that_needs_values_is_applied_and_verified_by_itself(build: Any) -> None:
    model, args, kwargs = build()
    plan = planc.compile(model, args, kwargs, ratio=0.5)
    assert plan.cost_after.params < plan.cost_before.params
    smaller = planc.apply(plan, model)
    assert planc.verify(plan, model, smaller).graph_error < 1e-4
    planc.verify(plan, model, smaller, args, kwargs)


@pytest.mark.parametrize("build", CASES)
def test_kept_values_survive_a_file(build: Any, tmp_path: Path) -> None:
    model, args, kwargs = build()
    plan = planc.compile(model, args, kwargs, ratio=0.5)
    assert plan.requires == (INPUT_VALUES,)
    planc.save_plan(plan, tmp_path / "plan.planc")
    loaded = planc.load_plan(tmp_path / "plan.planc")
    assert loaded == plan
    assert encode_plan(loaded) == encode_plan(planc.compile(model, args, kwargs, ratio=0.5))
    planc.apply(loaded, model)


def test_keywords_alone_are_inputs_everywhere() -> None:
    model, _, kwargs = spread()
    plan = planc.compile(model, kwargs=kwargs, ratio=0.5)
    assert planc.compile(model, (), kwargs, ratio=0.5) == plan
    other = {"ids": kwargs["ids"][:1], "pixels": torch.randn(2, 6)}
    smaller = planc.apply(plan, model, kwargs=other)
    planc.verify(plan, model, smaller, kwargs=kwargs)
    schedule = planc.Schedule(params=0.8)
    assert planc.next_step(schedule, model, kwargs=kwargs) is not None
    ready, nothing = planc.lossless(model, kwargs=kwargs)
    assert planc.trace(ready, kwargs=kwargs).input_spec == plan.inputs
    assert nothing.inputs == plan.inputs
    assert isinstance(planc.fold(model, kwargs=kwargs), Spread)


def test_a_list_is_a_tuple_of_arguments_everywhere() -> None:
    model, args, _ = packed()
    plan = planc.compile(model, list(args), ratio=0.5)
    smaller = planc.apply(plan, model, args=list(args))
    planc.verify(plan, model, smaller, list(args))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("target", ["module", "graph"])
def test_a_model_converted_after_compiling_is_applied_and_verified(
    dtype: torch.dtype, target: Any
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    plan = planc.compile(model, torch.randn(1, 3, 8, 8), ratio=0.5, target=target)
    converted = model.to(dtype)
    smaller = planc.apply(plan, converted)
    planc.verify(plan, converted, smaller)
    planc.verify(plan, converted, smaller, torch.randn(1, 3, 8, 8, dtype=dtype))


def test_a_model_that_converts_its_inputs_is_verified_in_another_precision() -> None:
    class Upcast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x).float().relu().to(x.dtype)
            result: torch.Tensor = self.second(hidden)
            return result

    model = Upcast().eval()
    plan = planc.compile(model, torch.randn(2, 6), ratio=0.5)
    half = model.bfloat16()
    planc.verify(plan, half, planc.apply(plan, half))


def test_inputs_of_other_values_are_inputs_of_the_same_shapes() -> None:
    model, (ids, lengths), _ = packed()
    plan = planc.compile(model, (ids, lengths), ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, (ids.flip(0), torch.tensor([2, 7, 1])))
    following = planc.compile(smaller, (ids.flip(1), lengths), ratio=0.5)
    both = planc.compose(plan, following)
    assert both.requires == plan.requires
    assert decode_plan(encode_plan(both)) == both
    planc.apply(both, model)


def test_a_table_of_latencies_knows_no_values(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Embedding(9, 16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)
    ).eval()
    timed: Timer = lambda calls: [1000] * len(calls)  # noqa: E731
    analysis = planc.analyze(planc.trace(model, torch.tensor([[1, 2]])))
    table = planc.measure_latency(analysis, timed=timed)
    assert not list(kept_values(table.inputs))
    planc.save_latency(table, tmp_path / "t.latency")
    other = planc.analyze(planc.trace(model, torch.tensor([[7, 2]])))
    assert planc.load_latency(tmp_path / "t.latency").prediction(other)
    longer = planc.analyze(planc.trace(model, torch.tensor([[7, 2, 3]])))
    with pytest.raises(PolicyError, match="measured for inputs"):
        table.prediction(longer)


def test_a_failure_on_made_up_inputs_says_so() -> None:
    model, args, _ = packed()
    plan = planc.compile(model, args, ratio=0.5)
    bare = plan.replace(inputs=without_values(plan.inputs), requires=())
    for call in (lambda: planc.apply(bare, model), lambda: planc.verify(bare, model, model)):
        with pytest.raises(planc.PlancError) as refusal:
            call()
        for word in ("made up", "args=", "kwargs=", "validate=False"):
            assert word in str(refusal.value)
    with pytest.raises(VerificationError) as refusal:
        planc.apply(plan, model, args=(args[0], torch.tensor([0, 1, 2])))
    assert "made up" not in str(refusal.value)
    planc.apply(bare, model, validate=False)
    planc.apply(bare, model, args=args)


@pytest.mark.parametrize(
    "part",
    [
        ("tensor", (2,), "int64", (1,)),
        ("tensor", (2,), "int64", (1, True)),
        ("tensor", (2,), "bool", (1, 0)),
        ("tensor", (1,), "uint8", (256,)),
        ("tensor", (1,), "int8", (-129,)),
        ("tensor", (1,), "float32", (1,)),
        ("tensor", (1,), "int64", (1.0,)),
        ("tensor", (1,), "int64", (None,)),
        ("tuple", *[("tensor", (MOST_OF_ONE,), "int8", (1,) * MOST_OF_ONE)] * 3),
    ],
)
def test_values_that_contradict_their_tensor_are_refused_in_a_file(part: Any) -> None:
    model, args, _ = packed()
    plan = planc.compile(model, args, ratio=0.5)
    with pytest.raises(MalformedFile, match="inputs"):
        encode_plan(plan.replace(inputs=("tuple", ("tuple", part), ("dict",))))


def test_a_file_with_values_requires_a_reader_that_knows_them() -> None:
    model, args, _ = packed()
    plan = planc.compile(model, args, ratio=0.5)
    for wrong in (
        plan.replace(requires=()),
        plan.replace(inputs=without_values(plan.inputs)),
    ):
        with pytest.raises(MalformedFile, match="requires"):
            encode_plan(wrong)


nested = st.recursive(
    st.lists(st.integers(-300, 300), min_size=1, max_size=4).map(torch.tensor),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(nested)
def test_every_plan_whose_inputs_are_written_is_read(value: Any) -> None:
    from planc.modules.inputs import materialise, specify

    spec = specify((value, torch.zeros(2)), {})
    model, args, _ = averaged()
    plan = planc.compile(model, args, _)
    plan = plan.replace(inputs=spec, requires=features(spec))
    read = decode_plan(encode_plan(plan))
    assert read == plan
    again = specify(*materialise(read.inputs))
    assert again == spec
    assert without_precision(again) == without_precision(without_values(spec))
    assert sum(map(len, kept_values(spec))) <= MOST_OF_ALL
