"""Lossless plans change no output: what is superfluous goes, what only seems to be stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

import planc
from planc.criteria.dead import Dead
from planc.errors import PolicyError
from planc.plan.plan import Plan
from planc.policy import Zeros
from tests.programs import write
from tests.support.silenced import WAYS, chosen_units, silenced, sparsified
from tests.support.small import MODELS, build


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
            expected, found = _tensors(model(*tried)), _tensors(other(*tried))
        largest = max(float(tensor.nan_to_num(0, 0, 0).abs().max()) for tensor in expected)
        close = {"rtol": 0, "atol": 1e-12 * max(1, largest), "equal_nan": True}
        torch.testing.assert_close(found, expected, **close)


def _tensors(results: Any) -> list[torch.Tensor]:
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    return [tensor.double() for tensor in results]


def dead(model: nn.Module, inputs: torch.Tensor | None = None) -> Plan:
    """The plan without folding."""
    inputs = IMAGES.double() if inputs is None else inputs
    return planc.compile(model, inputs, criterion=Dead(), policy=Zeros())


# -- what goes -----------------------------------------------------------------------------------


def test_a_model_without_zeros_stays_whole() -> None:
    assert removed(net()) == {}


def test_a_channel_scaled_and_shifted_to_zero_is_removed() -> None:
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


def test_a_constant_zeroed_by_the_activation_needs_no_bias() -> None:
    assert dead(scaled_to_zero(net(padding=1), -0.7)).groups[0].removed == (1,)


def test_channels_scaled_to_zero_by_an_instance_norm_are_removed() -> None:
    for track in (False, True):
        model = net(padding=1)
        model.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=track).double().eval()
        with torch.no_grad():
            model.norm.weight[2], model.norm.bias[2] = 0, 0
        assert removed(model) == {"one.weight:0": (2,)}


def test_an_unread_channel_is_removed() -> None:
    model = net(padding=1)
    with torch.no_grad():
        model.two.weight[:, 2] = 0
    assert removed(model) == {"one.weight:0": (2,)}


def test_a_zero_filter_is_removed_with_its_shift_folded_into_the_head() -> None:
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


def test_a_dead_group_keeps_a_unit() -> None:
    model = net()
    with torch.no_grad():
        model.norm.weight[:], model.norm.bias[:] = 0, 0
    plan = dead(model)
    assert plan.groups[0].kept == 1
    _same_outputs(model, planc.apply(plan, model), IMAGES.double())


def test_units_read_by_dead_units_only_are_removed() -> None:
    model = net(padding=1)
    with torch.no_grad():
        model.head.weight[:, 3] = 0  # nobody reads the second convolution's filter 3
        model.two.weight[:3, 2] = 0  # which alone reads channel 2
    assert removed(model) == {"one.weight:0": (2,), "two.weight:0": (3,)}


def test_a_constant_folds_into_a_transposed_convolution_without_overlap() -> None:
    class Up(Net):
        def __init__(self, stride: int) -> None:
            super().__init__(bias=True)
            self.two = nn.ConvTranspose2d(4, 4, 2, stride=stride)

    for stride, gone in ((2, {"one.weight:0": (1,)}), (1, {})):
        model = scaled_to_zero(Up(stride).double().eval(), 0.7)
        with torch.no_grad():
            model.two.weight[:] = model.two.weight[:, :, :1, :1]
        assert removed(model) == gone
        assert removed(scaled_to_zero(model, 0.0)) == {"one.weight:0": (1,)}


class Heads(nn.Module):
    """Attention over tokens, by torch's operator or step by step."""

    def __init__(self, fused: bool, bias: bool = True) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v = (nn.Linear(6, 12, bias=bias) for _ in range(3))
        self.out = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (
            layer(x).unflatten(2, (3, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v, mask, scale=0.5)
        else:
            scores = q @ k.mT * 0.5
            y = (
                functional.dropout(
                    (scores if mask is None else scores + mask).softmax(-1), 0.1, False
                )
                @ v
            )
        return self.out(y.transpose(1, 2).flatten(2))


TOKENS = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
FUSED = pytest.mark.parametrize("fused", [True, False])


def heads(fused: bool) -> Heads:
    torch.manual_seed(0)
    return Heads(fused).double().eval()


def rows(head: int, dim: int) -> int:
    return head * 4 + dim


@FUSED
def test_query_dimensions_against_zero_keys_are_removed(fused: bool) -> None:
    model = heads(fused)
    with torch.no_grad():
        for head, dim in ((0, 1), (1, 3), (2, 0)):
            layer = (model.q, model.k)[head % 2]
            layer.weight[rows(head, dim)], layer.bias[rows(head, dim)] = 0, 0
    assert removed(model, TOKENS, target="graph") == {"q.weight:0": (1, 7, 8)}


@FUSED
def test_constant_values_fold_into_the_output_projection(fused: bool) -> None:
    model = heads(fused)
    with torch.no_grad():
        for head, dim, shift in ((0, 2, 0.7), (1, 0, 0.0), (2, 1, -0.3)):
            model.v.weight[rows(head, dim)], model.v.bias[rows(head, dim)] = 0, shift
    assert removed(model, TOKENS, target="graph") == {"v.weight:0": (2, 4, 9)}


@FUSED
def test_unread_heads_and_heads_without_values_are_removed(fused: bool) -> None:
    model = heads(fused)
    with torch.no_grad():
        model.out.weight[:, 4:8] = 0
        model.v.weight[8:], model.v.bias[8:] = 0, 0
    assert removed(model, TOKENS, target="graph")["q.weight:0/heads"] == (1, 2)


def test_a_mask_may_hide_every_position_so_that_only_zero_values_are_known() -> None:
    model, mask = heads(fused=True), torch.rand(5, 5) < 0.5
    mask[2] = False
    with torch.no_grad():
        for head in range(3):
            model.v.weight[rows(head, 1)], model.v.bias[rows(head, 1)] = 0, 0.5
    assert removed(model, (TOKENS, mask), target="graph") == {}
    with torch.no_grad():
        model.v.bias[:] = 0
    assert removed(model, (TOKENS, mask), target="graph") == {"v.weight:0": (1, 5, 9)}


def test_a_zero_gate_removes_its_unit() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(functional.silu(self.gate(x)) * self.up(x))

    model = Gated().double().eval()
    with torch.no_grad():
        model.gate.weight[3], model.gate.bias[3] = 0, 0
        model.up.weight[5], model.up.bias[5] = 0, 0
    assert removed(model, TOKENS) == {"gate.weight:0": (3, 5)}


def test_a_group_with_a_norm_scaled_to_zero_is_removed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    model = model.double().eval()
    with torch.no_grad():
        model[1].weight[2:4], model[1].bias[2], model[1].bias[3] = 0, 0.4, 0
        model[1].weight[5] = 0  # half of a group
    assert removed(model) == {"0.weight:0/groups": (1,)}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_hidden_units_at_zero_or_unread_are_removed(kind: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(7, 2)
            self.layers = getattr(nn, kind)(5, 7, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.layers(torch.tanh(self.one(x)))[0])

    torch.manual_seed(0)
    model = Recurrent().double().eval()
    w_ih, w_hh, b_ih, b_hh = model.layers.parameters()
    candidate = {"LSTM": 2, "GRU": 2, "RNN": 0}[kind] * 7
    with torch.no_grad():
        model.one.weight[1], model.one.bias[1] = 0, 0
        w_ih[:, 3] = 0
        for unit, met in ((2, 2), (4, 2)):  # unit 4 reads unit 2, which is zero
            w_ih[candidate + unit], b_ih[candidate + unit], b_hh[candidate + unit] = 0, 0, 0
            w_hh[candidate + unit] = torch.eye(7, dtype=torch.float64)[met]
        model.two.weight[:, 6], w_hh[:, 6] = 0, 0
    assert removed(model, TOKENS) == {"one.weight:0": (1, 3), "two.weight:1": (2, 4, 6)}
    with torch.no_grad():
        b_hh[candidate + 2] = 0.1
    assert removed(model, TOKENS) == {"one.weight:0": (1, 3), "two.weight:1": (6,)}


def test_masked_models_lose_what_masks_made_superfluous() -> None:
    model = scaled_to_zero(net(bias=True), 0.7)
    prune.ln_structured(model.two, "weight", 1, n=2, dim=0)
    gone = int((model.two.weight_mask == 0).all(dim=(1, 2, 3)).nonzero())
    assert removed(model) == {"one.weight:0": (1,), "two.bias:0": (gone,)}
    prune.l1_unstructured(model.two, "bias", 1)  # a masked bias takes no constant: bake first
    assert "one.weight:0" not in removed(model)
    assert removed(planc.bake(model)) == {"one.weight:0": (1,), "two.weight:0": (gone,)}


# -- what stays ------------------------------------------------------------------------------------


def test_a_constant_that_reaches_a_padded_convolution_stays() -> None:
    assert removed(scaled_to_zero(net(padding=1), 0.7)) == {}


def test_padding_is_no_less_there_where_the_image_is_a_single_pixel() -> None:
    model, small = scaled_to_zero(net(padding=1), 0.7), IMAGES[:, :, :1, :1].double()
    ready, _ = planc.lossless(model, small)
    _same_outputs(model, ready, IMAGES.double())
    assert removed(model, small) == {}


def test_a_zero_lifted_by_the_activation_is_a_constant() -> None:
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


def test_a_small_scale_is_not_zero() -> None:
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


def test_a_bias_read_twice_takes_no_constant() -> None:
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


def test_a_buffer_overwritten_by_each_run_is_not_constant() -> None:
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


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_random_programs_with_zeros_strewn_in_compute_the_same(program: int, zeros: int) -> None:
    written = write(program, length=4)
    (x,) = written.inputs()
    x = x.double() if x.is_floating_point() else x
    removed(sparsified(written.model().double(), zeros), (x,))


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(WAYS), st.sampled_from(("module", "graph")))
def test_random_programs_with_silenced_units_compute_the_same(
    seed: int, way: str, target: Any
) -> None:
    written = write(seed, length=5)
    (x,) = written.inputs()
    x = x.double() if x.is_floating_point() else x
    model, rng = written.model().double(), np.random.default_rng(seed)
    analysis = planc.analyze(planc.trace(model, x))
    assume(target == "module" or not analysis.graph.data_dependent)
    silenced(model, analysis, chosen_units(analysis, 0.4, rng, target), way, rng)
    removed(model, (x,), target=target)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_zero_units_of_random_programs_are_dead(seed: int) -> None:
    written = write(seed, length=5)
    assume(not any("normalised_weights" in step for step in written.steps))  # 0 / 0
    (x,) = written.inputs()
    model, rng = written.model(), np.random.default_rng(seed)
    analysis = planc.analyze(planc.trace(model, x))
    zeros = silenced(model, analysis, chosen_units(analysis, 0.4, rng, "graph"), "zero", rng)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for group, units, alive in zip(
        analysis.groups, zeros, Dead("graph")(analysis, tensors), strict=True
    ):
        assert not alive[units].any(), str(group)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "several"])
def test_small_models_with_zeros_strewn_in_compute_the_same(name: str) -> None:
    for seed in range(3):
        model, inputs = build(name, torch.float64)
        removed(sparsified(model, seed), inputs)


class Grouped(nn.Module):
    """Attention of 8 queries in 2 groups, each with a key and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 24), nn.Linear(6, 6), nn.Linear(6, 6)
        self.o = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 3)).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))


def test_dead_query_heads_go_and_others_may_go_before() -> None:
    torch.manual_seed(0)
    model, tokens = Grouped().eval(), torch.randn(2, 5, 6)
    with torch.no_grad():
        for start in (3, 15):  # the second query of both keys is not read
            model.o.weight[:, start : start + 3] = 0
    first = planc.compile(model, tokens, ratio=0.0, remove={"q.weight:0/query_heads": [3]})
    for pruned in (model, planc.apply(first, model)):
        ready, plan = planc.lossless(pruned, tokens)
        removed = {group.name: tuple(group.removed) for group in plan.groups if group.removed}
        assert removed == {"q.weight:0/query_heads": (1,)}
        assert torch.allclose(planc.apply(plan, ready)(tokens), pruned(tokens), atol=1e-6)
