"""How far outputs are apart, and what two runs leave behind."""

from __future__ import annotations

import contextlib
import math
import re
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import planc
from planc.apply.validate import example_call
from planc.errors import VerificationError
from planc.modules.tree import tensors_by_name
from planc.trace.unfused import unfused
from planc.verify import outputs
from planc.verify.outputs import (
    compare_operands,
    differ,
    difference,
    masked_original,
    rewritten_graph,
    run,
    tolerance_of,
)

INF, NAN = math.inf, math.nan


def apart(a: Any, b: Any, allowed: float = INF) -> float:
    return difference([torch.tensor(a)], [torch.tensor(b)], allowed, "the other")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.0, -5.0], [1.0, -4.0], 0.25),
        ([3.0], [0.0], 3.0),
        ([INF, 1.0], [INF, 2.0], 0.5),
        ([-INF], [-INF], 0.0),
        ([1, 5], [1, 4], 0.25),
        ([True, False], [True, True], 1.0),
        ([1 + 1j], [1 + 0j], 1.0),
        ([3 + 4j], [3 + 4j], 0.0),
        ([], [], 0.0),
        ([2**53 + 1], [2**53], 2.0**-53),
    ],
)
def test_a_difference_is_relative_to_the_largest_finite_value(
    a: Any, b: Any, expected: float
) -> None:
    assert apart(a, b) == expected
    assert apart(a, b, allowed=expected) == expected
    if expected:
        with pytest.raises(VerificationError, match=re.escape(f"by {expected:.2e} rel")):
            apart(a, b, allowed=expected * 0.999)


@pytest.mark.parametrize(
    ("a", "b"),
    [([NAN], [1.0]), ([1.0], [NAN]), ([INF], [1.0]), ([INF], [-INF]), ([1.0], [INF])],
)
def test_what_is_not_a_number_or_infinite_on_one_side_differs(a: Any, b: Any) -> None:
    with pytest.raises(VerificationError, match="output 0 differs from that of the other"):
        apart(a, b, allowed=1e300)


def test_half_precision_is_compared_without_overflow() -> None:
    a, b = (torch.tensor([v], dtype=torch.float16) for v in (60_000.0, -60_000.0))
    assert difference([a], [b], 3, "x") == 2.0


def test_outputs_of_other_shapes_or_numbers_are_refused() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(VerificationError, match="1 outputs, the other has 2"):
        difference([one], [one, one], 1, "the other")
    with pytest.raises(VerificationError, match=r"output 1 has shape \(2,\), the other \(1,\)"):
        difference([one, two], [one, one], 1, "the other")
    assert difference([], [], 1, "the other") == 0.0


def test_the_largest_of_all_outputs_counts() -> None:
    ones = [torch.ones(1)] * 3
    assert difference([ones[0] * 1.5, ones[0] * 2, ones[0]], ones, 9, "x") == 1.0
    assert differ([ones[0]], [ones[0] * 2])
    assert not differ(ones, [*ones])


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((), 1e-4),
        ((torch.float64,), 1e-9),
        ((torch.float32,), 1e-4),
        ((torch.bfloat16,), 2e-2),
        ((torch.float64, torch.float32), 1e-4),
        ((torch.float32, torch.float16), 2e-2),
    ],
)
def test_the_least_precise_parameter_says_what_is_allowed(
    dtypes: tuple[torch.dtype, ...], expected: float
) -> None:
    model = nn.ParameterList([nn.Parameter(torch.zeros(1, dtype=dtype)) for dtype in dtypes])
    model.append(nn.Parameter(torch.zeros(1, dtype=torch.int8), requires_grad=False))
    assert tolerance_of(model) == expected


def test_values_behind_decisions_may_be_a_hundred_times_further_apart_than_outputs() -> None:
    def replay(*operands: Any) -> Any:
        return SimpleNamespace(
            operands=[torch.tensor(o) for o in operands], where="place {}".format
        )

    here, there = replay([1.0], [1.5], [2.25]), replay([1.0], [1.0], [2.0])
    assert compare_operands(here, there, 0.005, "the other") == 0.5
    with pytest.raises(VerificationError) as caught:
        compare_operands(here, there, 0.00499, "the other")
    assert str(caught.value) == (
        "what decides in place 1 differs from that of the other by 5.00e-01 relative, allowed 0.499"
    )
    assert compare_operands(replay(), replay(), 1, "the other") == 0.0


class Ending(contextlib.nullcontext[None]):
    """Stands for a replay of no decisions."""

    ended = False

    def finish(self) -> None:
        self.ended = True


def test_a_run_that_decides_as_another_is_one_operator_by_operator() -> None:
    replay: Any = Ending()
    with outputs._deciding(replay):
        assert torch.is_inference_mode_enabled()
    assert replay.ended
    with outputs._deciding(None):
        assert not torch.is_inference_mode_enabled()


class Switch(nn.Module):
    """Notes the fast path's switch during its run."""

    seen: ClassVar[list[bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(torch.backends.mha.get_fastpath_enabled())
        return x


@pytest.mark.parametrize("enabled", [True, False])
def test_fused_fast_paths_are_off_during_a_run_and_as_before_after_it(enabled: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    Switch.seen.clear()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        run(Switch(), ((torch.zeros(1),), {}))
        with pytest.raises(VerificationError, match="a run of Switch fails: TypeError"):
            run(Switch(), ((), {}))
        with unfused(), unfused():
            run(Switch(), ((torch.zeros(1),), {}))
            assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        assert Switch.seen == [False, False]
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Padded(nn.Module):
    """An encoder whose fast path gives zeros at padded places."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth) if depth else layer
        self.last = nn.Linear(16, 5)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.encoder(self.embedding(t), src_key_padding_mask=t == 0))
        return y


@pytest.mark.long
@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_padded_encoders_are_verified_with_the_fast_path_on(depth: int, target: Any) -> None:
    model, t = Padded(depth).eval(), torch.randint(1, 50, (2, 7))
    t[0, 5:] = 0
    plan = planc.compile(model, t, ratio=0.5, target=target)
    assert torch.backends.mha.get_fastpath_enabled()
    assert planc.verify(plan, model, planc.apply(plan, model), t).graph_error < 1e-5


def test_runs_that_overlap_put_the_switch_back_when_the_last_one_ends() -> None:
    first, last = unfused(), unfused()
    before = torch.backends.mha.get_fastpath_enabled()
    first.__enter__()
    last.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.mha.get_fastpath_enabled()
    last.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled() == before


class Counter(nn.Module):
    """Writes to its input and to a buffer, and draws a number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: torch.Tensor, more: dict[str, Any]) -> Any:
        self.runs += 1
        x.add_(self.runs)
        return {"x": x, "drawn": torch.rand(2), "more": more["y"] + 1, "number": 3}


def test_a_run_leaves_inputs_buffers_and_random_state_as_they_were() -> None:
    model, x, y = Counter(), torch.zeros(2), torch.ones(1)
    state = torch.random.get_rng_state()
    first = run(model, ((x,), {"more": {"y": y, "n": 1}}))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.runs.tolist() == [0]
    assert x.tolist() == [0, 0]
    assert [t.tolist() for t in (first[0], first[2])] == [[1, 1], [2]]
    assert len(first) == 3
    again = run(model, ((x,), {"more": {"y": y}}))
    assert not differ(first, again)
    for seed in (-1, 0, 1):
        other = run(model, ((x,), {"more": {"y": y}}), seed=seed)
        assert differ(first, other) == (seed != 0)
    assert not any(t.requires_grad for t in run(nn.Linear(2, 2), ((x,), {})))


def test_a_run_leaves_the_random_state_of_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[Any] = []

    def noted(devices: Any = None) -> contextlib.nullcontext[None]:
        forked.append(devices)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.random, "fork_rng", noted)
    run(nn.Linear(2, 2), ((torch.zeros(1, 2),), {}))
    assert forked == [[]]


class Tied(nn.Module):
    """A weight under two names, one of them frozen, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("scale", torch.arange(1.0, 5.0))
        self.up.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.relu(self.up(x)) * self.scale)
        return y


def test_references_are_made_of_the_originals_tensors_by_the_labels() -> None:
    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randn(5, 3)
    plan = planc.compile(model, x, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, x))
    (group,) = plan.groups
    gone = analysis.gone([group.removed])
    removed = list(group.removed)
    masked = masked_original(analysis, gone, model)
    before, after = tensors_by_name(model), tensors_by_name(masked)
    assert after["up.weight"][removed].abs().sum() == 0
    assert after["down.weight"][:, removed].abs().sum() == 0
    assert after["scale"][removed].abs().sum() == 0
    kept = [i for i in range(4) if i not in removed]
    assert torch.equal(after["up.weight"][kept], before["up.weight"][kept])
    assert torch.equal(after["scale"][kept], before["scale"][kept])
    for name, tensor in before.items():
        assert after[name] is not tensor
        assert after[name].data_ptr() != tensor.data_ptr()
        assert after[name].requires_grad == tensor.requires_grad
        assert isinstance(after[name], nn.Parameter) == isinstance(tensor, nn.Parameter)
    graph = rewritten_graph(plan, analysis, gone, model)
    assert not any(p.requires_grad for p in graph.parameters())
    assert differ([masked(x)], [model(x)])
    assert difference([graph(x).detach()], [masked(x).detach()], 1e-6, "the masked original") < 1e-6


def test_an_example_call_is_what_was_given_or_made_from_the_plan() -> None:
    model, x = Tied().eval(), torch.randn(5, 3)
    plan = planc.compile(model, x, ratio=0.5)
    assert example_call(plan, model, x) == ((x,), {})
    assert example_call(plan, model, (x,), {"a": 1}) == ((x,), {"a": 1})
    given = {"a": 1}
    assert example_call(plan, model, x, given)[1] is not given
    args, kwargs = example_call(plan, model)
    assert args[0].shape == (5, 3)
    assert kwargs == {}
    (made,), _ = example_call(plan, model.to("meta"))
    assert made.device.type == "cpu"


class SelfWriting(nn.Module):
    """Scales a weight at its first call and keeps what it computed, as some models do."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)
        self.scaled = False
        self.cache: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.scaled:
            with torch.no_grad():
                self.down.weight.div_(2)
            self.scaled = True
        self.cache["last"] = x
        y: torch.Tensor = self.down(torch.relu(self.up(x)))
        return y


def test_a_model_that_writes_to_itself_is_as_it_was_after_a_run() -> None:
    torch.manual_seed(0)
    model = SelfWriting().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    call = ((torch.randn(2, 3),), {})
    first, again = run(model, call), run(model, call)
    assert torch.equal(first[0], again[0])
    assert not model.scaled
    assert not model.cache
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    plan = planc.compile(model, call[0])
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    planc.verify(plan, model, smaller, *call)
    assert not smaller.scaled
    assert not smaller.cache
    for name, tensor in planc.restore(plan, smaller, removed).state_dict().items():
        assert torch.equal(tensor, before[name])
