"""Lossless plans change no output: what is superfluous goes, what only seems to be stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import planc
from planc.constants.dead import Dead
from planc.errors import PolicyError
from planc.plan import Plan
from planc.policy import Zeros
from tests.programs import write
from tests.small import MODELS, build


class Net(nn.Module):
    """Two convolutions with batch norm, the first one's channels read by the second."""

    def __init__(self, padding: int = 0, bias: bool = False, residual: bool = False) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 4, 3, padding=padding, bias=bias)
        self.last = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.act: Any = functional.relu
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.one(x)))
        y = self.last(self.two(x))
        if self.residual:
            y = y + x
        return self.head(functional.relu(y).mean((2, 3)))


IMAGES = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    model = Net(**options).double().eval()
    for norm in (model.norm, model.last):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
    return model


def scaled_to_zero(model: Net, shift: float) -> Net:
    with torch.no_grad():
        model.norm.weight[1], model.norm.bias[1] = 0, shift
    return model


def removed(model: nn.Module, inputs: Any = None, **options: Any) -> dict[str, tuple[int, ...]]:
    """What a lossless plan removes, by group, after its promise has been checked."""
    inputs = IMAGES.double() if inputs is None else inputs
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready, plan = planc.lossless(model, inputs, **options)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the argument has changed"
    _same_outputs(model, ready, inputs)
    _same_outputs(model, planc.apply(plan, ready), inputs)
    return {group.name: group.removed for group in plan.groups if group.removed}


def _same_outputs(model: nn.Module, other: nn.Module, inputs: Any) -> None:
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        tried = [
            torch.randn(x.shape, generator=generator, dtype=x.dtype) * 3
            if x.is_floating_point()
            else x
            for x in inputs
        ]
        with torch.no_grad():
            expected, found = model(*tried), other(*tried)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def dead(model: nn.Module, inputs: torch.Tensor | None = None) -> Plan:
    """The plan without folding."""
    inputs = IMAGES.double() if inputs is None else inputs
    return planc.compile(model, inputs, criterion=Dead(), policy=Zeros())


# -- what goes -----------------------------------------------------------------------------------


def test_nothing_goes_from_a_model_without_zeros() -> None:
    assert removed(net()) == {}


def test_a_channel_scaled_and_shifted_to_zero_goes() -> None:
    for padding in (0, 1):
        assert removed(scaled_to_zero(net(padding=padding), 0.0)) == {"one.weight:0": (1,)}


def test_a_constant_moves_into_the_bias_or_the_running_mean() -> None:
    for bias in (False, True):
        model = scaled_to_zero(net(bias=bias), 0.7)
        assert dead(model).groups[0].removed == ()
        assert removed(model) == {"one.weight:0": (1,)}
        ready = planc.fold(model, IMAGES.double())
        where = "two.bias" if bias else "last.running_mean"
        changed = {
            name
            for name, tensor in ready.state_dict().items()
            if not torch.equal(tensor, model.state_dict()[name])
        }
        assert where in changed
        assert not changed & ({"two.bias", "last.running_mean"} - {where})


def test_a_constant_that_the_activation_stops_needs_no_bias() -> None:
    assert dead(scaled_to_zero(net(padding=1), -0.7)).groups[0].removed == (1,)


def test_a_channel_that_nobody_reads_goes() -> None:
    model = net(padding=1)
    with torch.no_grad():
        model.two.weight[:, 2] = 0
    assert removed(model) == {"one.weight:0": (2,)}


def test_a_filter_of_zeros_goes_with_its_shift_folded_into_the_head() -> None:
    model = net()
    with torch.no_grad():
        model.two.weight[3] = 0
    assert removed(model) == {"two.weight:0": (3,)}


def test_a_chain_of_constants_folds_as_one() -> None:
    model = scaled_to_zero(net(), 0.7)
    with torch.no_grad():
        model.two.weight[0] = 0
        model.two.weight[0, 1] = 1  # made of the constant channel alone
    assert removed(model) == {"one.weight:0": (1,), "two.weight:0": (0,)}


def test_a_group_that_is_dead_all_over_keeps_a_unit() -> None:
    model = net()
    with torch.no_grad():
        model.norm.weight[:], model.norm.bias[:] = 0, 0
    plan = dead(model)
    assert plan.groups[0].kept == 1
    _same_outputs(model, planc.apply(plan, model), IMAGES.double())


# -- what stays ------------------------------------------------------------------------------------


def test_a_constant_that_reaches_a_padded_convolution_stays() -> None:
    assert removed(scaled_to_zero(net(padding=1), 0.7)) == {}


def test_a_zero_that_the_activation_lifts_is_a_constant() -> None:
    for padding, gone in ((0, {"one.weight:0": (1,)}), (1, {})):
        model = scaled_to_zero(net(padding=padding), 0.0)
        model.act = torch.sigmoid
        assert removed(model) == gone


def test_a_channel_of_the_residual_stream_stays_while_one_path_lives() -> None:
    model = scaled_to_zero(net(padding=1, residual=True), 0.0)
    assert removed(model) == {}  # the second block still writes there
    with torch.no_grad():
        model.last.weight[1], model.last.bias[1] = 0, 0
    assert removed(model) == {"one.weight:0": (1,)}


def test_a_scale_that_is_merely_small_is_no_zero() -> None:
    model = net()
    with torch.no_grad():
        model.norm.weight[1], model.norm.bias[1] = 1e-30, 0
    assert removed(model) == {}


def test_a_constant_without_a_place_to_go_stays() -> None:
    class Shared(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.act(self.norm(self.one(x)))
            y = self.two(x)
            return self.head(functional.relu(self.last(y) + y).mean((2, 3)))

    model = Shared().double().eval()
    assert removed(scaled_to_zero(model, 0.7)) == {}
    assert removed(scaled_to_zero(model, 0.0)) == {"one.weight:0": (1,)}


def test_a_bias_that_is_read_twice_takes_no_constant() -> None:
    class Twice(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.act(self.norm(self.one(x)))
            b = self.act(self.one(x.flip(3)))
            return self.head((self.two(a) + self.two(b)).mean((2, 3)))

    assert removed(scaled_to_zero(Twice(bias=True).double().eval(), 0.7)) == {}


def test_layer_norm_over_dead_channels_keeps_them() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0
    assert removed(model.eval(), torch.randn(5, 4).double()) == {}


def test_a_buffer_that_each_run_overwrites_is_no_constant() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)
            self.register_buffer("gain", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.two(self.one(x) * self.gain)
            self.gain.add_(1)
            return y

    torch.manual_seed(0)
    plan = dead(Counting().eval(), torch.randn(2, 4))
    assert not any(group.removed for group in plan.groups)


def test_a_model_in_training_is_refused() -> None:
    model = scaled_to_zero(net(), 0.0).train()
    for attempt in (planc.fold, planc.lossless):
        with pytest.raises(PolicyError, match=r"call model.eval\(\)"):
            attempt(model, IMAGES.double())


# -- any model -------------------------------------------------------------------------------------


def sparsified(model: nn.Module, seed: int) -> nn.Module:
    """Rows, columns and vectors of zeros strewn over a model."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            for dim in range(min(parameter.dim(), 2)):
                if rng.random() < 0.6:
                    gone = torch.from_numpy(rng.random(parameter.shape[dim]) < 0.4)
                    parameter.index_fill_(dim, gone.nonzero()[:, 0], 0)
    return model


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_random_programs_with_zeros_strewn_in_compute_the_same(program: int, zeros: int) -> None:
    written = write(program, length=4)
    (x,) = written.inputs()
    x = x.double() if x.is_floating_point() else x
    removed(sparsified(written.model().double(), zeros), (x,))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "several"])
def test_small_models_with_zeros_strewn_in_compute_the_same(name: str) -> None:
    for seed in range(3):
        model, inputs = build(name, torch.float64)
        removed(sparsified(model, seed), inputs)
