"""Rounding and errors are told apart: a difference that double precision removes is no error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import planc
from planc.errors import TraceError, VerificationError
from planc.verify.outputs import run
from planc.verify.precision import Precision, converted
from planc.verify.rounding import Pair, settled
from tests.support.proving import randomise

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
FAILURE = VerificationError("output 0 differs")


class Told(nn.Module):
    """Two linear layers, and what a function makes of the result."""

    def __init__(self, function: Callable[[Tensor], Any], width: int = 32) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 6)
        self.function = function
        randomise(self, seed=0)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.function(self.down(torch.relu(self.up(x))))


def split(model: nn.Module) -> nn.Module:
    """The same model, whose hidden units lie in another order: it differs by rounding."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    other = Told(model.function)  # type: ignore[arg-type]
    with torch.no_grad():
        other.up.weight.copy_(other.up.weight[order].clone())
        other.up.bias.copy_(other.up.bias[order].clone())
        other.down.weight.copy_(other.down.weight[:, order].clone())
    return other


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "outputs": lambda y: y,
    "a sum that cancels": lambda y: torch.cat([y, -y.flip(-1)], -1).sum(-1),
    "a difference of means": lambda y: y.mean(0) - y.sum(0) / 16,
    "a type of its own": lambda y: (y.float() - y.float().mean(-1, keepdim=True)).sum(-1),
    "some that cancel": lambda y: (y, torch.cat([-y, y], -1).sum(-1), y.square()),
    "complex ones": lambda y: torch.complex(y, y - y.mean(0)).sum(0),
    "filled": lambda y: torch.zeros(16, 6, dtype=torch.float32).copy_(y).sum(-1) - y.sum(-1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_rounding_sets_apart_is_settled_in_double_precision(
    name: str, dtype: torch.dtype
) -> None:
    if name == "complex ones" and dtype is torch.bfloat16:
        dtype = torch.float32  # torch has no complex numbers of so few digits
    model = Told(FUNCTIONS[name])
    pair = Pair(split(model).to(dtype), model.to(dtype), ((X.to(dtype),), {}))
    error, remark = settled(FAILURE, pair, 1e-4)
    assert error <= 1e-9
    assert remark.startswith("; compared in float64, because in the model's own precision output 0")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
@given(
    seed=st.integers(0, 1000), size=st.sampled_from([1e-3, 1e-2, 0.5]), layer=st.sampled_from("ud")
)
@settings(max_examples=5, deadline=None)
def test_a_weight_that_is_wrong_is_an_error_in_any_precision(
    name: str, dtype: torch.dtype, seed: int, size: float, layer: str
) -> None:
    model = Told(FUNCTIONS["outputs"] if name.startswith(("a ", "filled")) else FUNCTIONS[name])
    other = split(model)
    weight = other.up.weight if layer == "u" else other.down.weight
    with torch.no_grad():
        weight.view(-1)[seed % weight.numel()] += size  # type: ignore[operator,union-attr]
    pair = Pair(other.to(dtype), model.to(dtype), ((X.to(dtype),), {}))
    outputs = [run(m, pair.call) for m in (pair.smaller, pair.reference)]
    if all(map(torch.equal, *outputs)):  # a unit that is never active
        return
    with pytest.raises(VerificationError, match="output 0 differs"):
        settled(FAILURE, pair, 1e-4)


@pytest.mark.parametrize("size", [1e-3, 0.5])
def test_what_a_cancelled_output_should_not_hold_is_an_error(size: float) -> None:
    model = Told(FUNCTIONS["a sum that cancels"])
    other = split(model)
    other.function = lambda y: FUNCTIONS["a sum that cancels"](y) + size  # type: ignore[assignment]
    with pytest.raises(VerificationError, match="output 0 differs"):
        settled(FAILURE, Pair(other, model, ((X,), {})), 1e-4)


def test_outputs_of_another_number_or_shape_are_errors() -> None:
    model = Told(lambda y: y)
    for function in (lambda y: (y, y), lambda y: y[:8], lambda y: y[:0]):
        with pytest.raises(VerificationError, match="output 0 differs"):
            settled(FAILURE, Pair(Told(function), model, ((X,), {})), 1e-4)


def test_a_run_that_fails_in_double_precision_and_a_tolerance_below_its_digits_settle_nothing() -> (
    None
):
    def picky(y: Tensor) -> Tensor:
        if y.dtype == torch.float64:
            raise TypeError("float32 wanted")
        return y

    model = Told(picky)
    for allowed in (1e-4, 1e-30):
        with pytest.raises(VerificationError, match="output 0 differs"):
            settled(FAILURE, Pair(split(model), model, ((X,), {})), allowed)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: noise(y),
        lambda y: noise(y) > 0,
        lambda y: y[noise(y) > 0],
        lambda y: torch.stack([noise(y), -noise(y)], -1).argmax(-1),
    ],
)
def test_what_rounding_decides_in_the_original_as_well_is_not_compared(
    function: Callable[[Tensor], Any],
) -> None:
    model = Told(function)
    error, remark = settled(FAILURE, Pair(split(model), model, ((X,), {})), 1e-4)
    assert error == 0.0
    assert "where rounding alone changes output 0 of the original as much" in remark


def noise(y: Tensor) -> Tensor:
    """Nothing but rounding, whatever the precision."""
    both = torch.cat([y, -y.flip(-1)], -1)
    total = both.sum(-1)
    return torch.where(total == 0, 0, total / total.abs().clamp_min(1e-30))


def test_decisions_that_the_original_takes_alike_in_any_precision_are_compared() -> None:
    model = Told(lambda y: y.argmax(-1))
    other = split(model)
    other.function = lambda y: (y * torch.arange(6)).argmax(-1)  # type: ignore[assignment]
    with pytest.raises(VerificationError, match="output 0 differs"):
        settled(FAILURE, Pair(other, model, ((X,), {})), 1e-4)
    half = split(model)
    half.function = lambda y: torch.where(torch.arange(16) > 11, noise(y), y[:, 0])  # type: ignore[assignment]
    model.function = lambda y: torch.where(torch.arange(16) > 11, noise(y), y[:, 1])  # type: ignore[assignment]
    with pytest.raises(VerificationError, match="output 0 differs"):
        settled(FAILURE, Pair(half, model, ((X,), {})), 1e-4)


def test_random_outputs_are_not_taken_for_rounding() -> None:
    for function in (
        lambda y: y + torch.rand(y.shape),
        lambda y: (y + torch.rand(y.shape)) > 0,
        lambda y: y[torch.rand(16) > 0.5],
    ):
        model = Told(function)
        other = split(model)
        other.function = lambda y, f=function: f(y + 1)  # type: ignore[assignment,misc]
        with pytest.raises(VerificationError, match="output 0 differs"):
            settled(FAILURE, Pair(other, model, ((X,), {})), 1e-4)


def test_in_a_precision_every_operator_reads_and_gives_one_type() -> None:
    def seen(y: Tensor) -> Any:
        parts = (y.half(), y.to(torch.float32), torch.zeros(2), torch.ones(2, dtype=torch.bfloat16))
        return *parts, torch.fft.fft(y), torch.arange(3), y.to(torch.int32), torch.from_numpy(ARRAY)

    for dtype, other in ((torch.float64, torch.complex128), (torch.float32, torch.complex64)):
        found = [value.dtype for value in run(Told(seen), ((X,), {}), dtype=dtype)]
        assert found == [*(dtype,) * 4, other, torch.int64, torch.int32, dtype]
    assert converted(X, None) is X
    sparse = X.to_sparse()
    assert converted(sparse, torch.float64) is sparse
    with Precision(torch.float64):
        assert torch.empty(2, device="meta").dtype == torch.float64


ARRAY = X.numpy()


@pytest.mark.parametrize("double", [True, False])
def test_a_model_whose_output_cancels_is_verified(double: bool) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.down(torch.relu(self.up(x)))
            return (
                torch.cat([-y, y], 1).flatten(1)[:, ::3].sum(1) * 0
                + y.sum((1, 2, 3))
                - (y.flatten(2).sum(-1).sum(-1))
            )

    model = Sums().eval()
    randomise(model, seed=0)
    x = torch.randn(2, 3, 8, 6)
    if double:
        model, x = model.double(), x.double()
    plan = planc.compile(model, x, ratio=0.5)
    smaller = planc.apply(plan, model)
    report = planc.verify(plan, model, smaller, x)
    assert report.error is not None
    with torch.no_grad():
        smaller.down.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(VerificationError):
        planc.verify(plan, model, smaller, x)


# -- what has no numbers, or is not the same twice ------------------------------------------------


def verified(model: nn.Module, x: Tensor = X) -> planc.verify.Report:  # type: ignore[name-defined]
    plan = planc.compile(model, x, ratio=0.5)
    return planc.verify(plan, model, planc.apply(plan, model), x)


def test_outputs_without_numbers_are_named() -> None:
    found = verified(Told(lambda y: (y, y / 0, y[:0], y > 0, (y * 0).log())))
    told = "\n".join(found.checks)
    assert "output 1 has 96 of 96 values that are NaN or infinite, in the reference as well" in told
    assert "output 2 is empty (0x6): it has no numbers to compare" in told
    assert "output 3 " not in told
    assert "output 4 has 96 of 96 values" in told


@pytest.mark.parametrize("shape", [(0, 8), (0, 3, 8), (2, 0, 8)])
def test_inputs_without_elements_end_in_a_report(shape: tuple[int, ...]) -> None:
    assert "it has no numbers to compare" in str(verified(Told(lambda y: y), torch.randn(shape)))


class Empty(nn.Module):
    """Layers of no width, as an output and between others."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.none = nn.Linear(8, 16), nn.Linear(16, 4)
        self.none.weight = nn.Parameter(torch.zeros(0, 16))
        self.none.bias = nn.Parameter(torch.zeros(0))
        self.back, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.back.weight = nn.Parameter(torch.zeros(6, 0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.none(torch.relu(self.up(x)))
        return y, self.last(torch.relu(self.back(y)))


def test_layers_of_no_width_are_pruned_around() -> None:
    assert "output 0 is empty (16x0)" in str(verified(Empty().eval()))


def test_outputs_that_are_not_random_are_compared_beside_random_ones() -> None:
    hidden = nn.Dropout(0.5)

    class Mixed(Told):
        def forward(self, x: Tensor) -> Any:
            y = torch.relu(self.up(x))
            return self.down(hidden(y)), self.down(y)

    report = verified(Mixed(lambda y: y).train())
    assert report.error is None
    assert "1 outputs equal the masked original's" in report.checks[-1]
    assert "the other 1 are not compared, because they are random" in report.checks[-1]


def test_a_model_that_nothing_makes_the_same_twice_is_reported_and_not_refused() -> None:
    report = verified(Told(lambda y: y + torch.tensor(float(time.perf_counter_ns() % 997))))
    assert report.checks[-1] == "outputs not compared: the original's are not the same twice"


def test_a_run_that_fails_is_a_verification_error_with_advice() -> None:
    model = Told(lambda y: y)
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    with pytest.raises(TraceError, match="could not be traced"):
        planc.verify(plan, model, smaller, torch.randn(2, 9))
    with pytest.raises(VerificationError, match=r"a run of Told fails: RuntimeError: .*; verify w"):
        run(model, ((torch.randn(2, 9),), {}))
