"""from_masks removes what nobody notices, nothing else, and says why the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import planc
from planc.errors import PlancError, PolicyError, StalePlan
from planc.masks import FromMasks, PerTensor, after, apply, from_masks, read, select
from planc.modules.nesting import leaves
from planc.modules.tables import tensors_of
from planc.plan.masks import mask_plan
from tests.masks.drawn import settings
from tests.masks.masking import covering
from tests.modules.test_hooks import IMAGES, net
from tests.programs import write
from tests.support.proving import Net, randomise
from tests.support.small import MODELS, build


def masked_model(**kept: list[int]) -> nn.Sequential:
    """``net()`` whose first norm and convolutions keep the given channels of some tensors."""
    model = net()
    for place, channels in kept.items():
        layer, name, dim = place.split("_")
        module = model[int(layer[1:])]
        keep = torch.zeros_like(module.get_parameter(name))
        keep.movedim(int(dim), 0)[channels] = 1
        prune.custom_from_mask(module, name, keep)
    return model


def removed(found: FromMasks) -> dict[str, tuple[int, ...]]:
    return {group.name: group.removed for group in found.plan.groups if group.removed}


def agrees(found: FromMasks, model: nn.Module, x: Any = IMAGES) -> nn.Module:
    smaller = planc.apply(found.plan, model)
    planc.verify(found.plan, model, smaller, x)
    assert torch.allclose(smaller(x), model(x), atol=1e-5)
    return smaller


SOME, FEW = [0, 2, 3, 6], [2, 6]


def test_units_whose_every_weight_is_masked_go() -> None:
    model = masked_model(m0_weight_0=SOME, m0_bias_0=SOME, m1_weight_0=SOME, m1_bias_0=SOME,
                         m3_weight_1=SOME)  # fmt: skip
    found = from_masks(model, IMAGES)
    assert [*removed(found).values()] == [(1, 4, 5, 7)]
    assert found.rest.removed == 0
    assert found.refused == ()
    assert agrees(found, model)[0].out_channels == 4


def test_masked_readers_are_enough() -> None:
    """What makes the unit may be anything: nobody reads it."""
    model = masked_model(m3_weight_1=SOME)
    found = from_masks(model, IMAGES)
    assert [*removed(found).values()] == [(1, 4, 5, 7)]
    agrees(found, model)


def test_a_zero_scale_and_shift_are_enough() -> None:
    model = masked_model(m1_weight_0=SOME, m1_bias_0=FEW)
    found = from_masks(model, IMAGES)
    assert [*removed(found).values()] == [(1, 4, 5, 7)]
    assert found.rest.removed == 2  # of the shift, masked in units that stay
    agrees(found, model)


def test_values_that_are_zero_count_where_something_is_masked() -> None:
    model = masked_model(m1_weight_0=SOME)
    with torch.no_grad():
        model[1].bias.fill_(0.1)
    stays = from_masks(model, IMAGES)
    assert not removed(stays)
    with torch.no_grad():
        model[1].bias.zero_()
    found = from_masks(model, IMAGES)
    assert [*removed(found).values()] == [(1, 4, 5, 7)]
    agrees(found, model)
    plain = planc.bake(model)
    with pytest.raises(PolicyError, match="carries no masks"):
        from_masks(plain, IMAGES)


def test_a_constant_that_a_masked_unit_would_leave_behind_keeps_it() -> None:
    """The usual case: ln_structured masks a convolution's rows, and its norm shifts them."""
    model = net()
    with torch.no_grad():
        model[1].bias.fill_(10)
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    found = from_masks(model, IMAGES)
    assert not removed(found)
    (refused,) = found.refused
    assert len(refused.units) == 4
    for words in ("not zero there", "1.bias", "0.bias", "1.running_mean", "aten.conv2d.default"):
        assert words in refused.reason
    assert "0 masked units can go; 108 masked elements stay as zeros" in str(found)
    assumed = from_masks(model, IMAGES, assume_zero=("0.bias", "1.bias", "1.weight"))
    assert [*removed(assumed).values()] == [refused.units]
    agreed = from_masks(model, IMAGES, assume_zero=("1",))
    assert removed(agreed) == removed(assumed)
    with pytest.raises(PolicyError, match="'2' matches no parameter"):
        from_masks(model, IMAGES, assume_zero=("2",))


def test_a_constant_that_can_be_folded_no_longer_keeps_its_unit() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    with torch.no_grad():
        model[1].bias.fill_(10)
    folded = planc.fold(planc.bake(model), IMAGES)
    found = from_masks(folded, IMAGES, masks=read(model))
    assert [len(units) for units in removed(found).values()] == [4]
    assert found.rest.removed == 0
    smaller = planc.apply(found.plan, folded)
    assert torch.allclose(smaller(IMAGES), model(IMAGES), atol=1e-4)


def test_what_an_activation_makes_zero_is_zero() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    with torch.no_grad():
        model[1].bias.fill_(-10)
    found = from_masks(model, IMAGES)
    assert [len(units) for units in removed(found).values()] == [4]
    agrees(found, model)
    assert not removed(from_masks(model.train(), IMAGES))  # its norm takes other statistics


def test_single_elements_are_the_rest_which_the_smaller_model_keeps() -> None:
    model = masked_model(m3_weight_1=SOME)
    prune.l1_unstructured(model[5], "weight", 100)
    found = from_masks(model, IMAGES)
    smaller = agrees(found, model)
    left = after(found.plan, found.rest)
    assert set(left.by_name) == {"5.weight_orig"}
    assert left.removed == 100
    hidden = smaller[5].weight_mask == 0
    assert torch.equal(hidden, torch.from_numpy(left.elements("5.weight_orig")))


def test_dimensions_that_are_pinned_say_why() -> None:
    model = net()
    prune.ln_structured(model[5], "weight", 2, n=2, dim=0)
    rows = torch.arange(3).gt(0)[:, None]
    prune.custom_from_mask(model[3], "weight", rows.expand(6, 8, 3, 3))
    found = from_masks(model, IMAGES)
    assert not removed(found)
    reasons = {refused.name: refused for refused in found.refused}
    assert len(reasons["5.weight_orig:0"].units) == 2
    assert "output of the model" in reasons["5.weight_orig:0"].reason
    assert reasons["3.weight_orig:2"].units == (0,)
    assert "kernel" in reasons["3.weight_orig:2"].reason


def test_a_group_keeps_a_unit_and_rows_lose_equally_many() -> None:
    model = masked_model(m3_weight_1=[])
    found = from_masks(model, IMAGES)
    assert [*removed(found).values()] == [tuple(range(7))]
    assert ((7,), "the model must keep 1 of 8") in [(r.units, r.reason) for r in found.refused]
    agrees(found, model)


def test_what_mixes_stays() -> None:
    norm = Net(lambda m, x: m.b(m.n(m.a(x))), a=nn.Linear(3, 6), n=nn.LayerNorm(6),
               b=nn.Linear(6, 2)).eval()  # fmt: skip
    prune.ln_structured(norm.b, "weight", 2, n=2, dim=1)
    found = from_masks(norm, torch.randn(2, 3))
    assert not removed(found)
    assert "removing is not zeroing: layer norm over it" in found.refused[0].reason


def test_heads_go_whole() -> None:
    model, inputs = build("attention")
    analysis = planc.analyze(planc.trace(model, inputs))
    heads = next(group for group in analysis.groups if group.kind == "heads")
    specs = {spec.name: spec for spec in tensors_of(model)}
    gone = {}
    for member in heads.members:
        elements = gone.setdefault(member.tensor, np.zeros(specs[member.tensor].shape, dtype=bool))
        units, indices = member.expand()
        np.moveaxis(elements, member.dim, 0)[indices[units == 1]] = True
    masks = mask_plan(tensors_of(model), gone)
    found = from_masks(model, inputs, masks=masks)
    assert removed(found).get(heads.name) == (1,)
    masked = apply(masks, model)
    smaller = planc.apply(found.plan, masked)
    assert torch.allclose(smaller(*inputs), masked(*inputs), atol=1e-5)


def proves(
    model: nn.Module, args: tuple[Any, ...], target: Literal["module", "graph"], seed: int
) -> int:
    """How many units go of a model with random masks, once its outputs are found to be the same."""
    masks = covering(model, planc.analyze(planc.trace(model, args)), seed)
    found = from_masks(model, args, masks=masks, target=target)
    masked = apply(masks, model)
    smaller = planc.apply(found.plan, masked)
    with torch.no_grad():
        pairs = list(zip(leaves(smaller(*args)), leaves(masked(*args)), strict=True))
    assert pairs
    for ours, expected in pairs:
        assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    expressed = masks - found.rest
    assert ((expressed | found.rest) - masks).removed == 0
    left = after(found.plan, masks)
    assert left.masks == after(found.plan, found.rest).masks
    return sum(len(group.removed) for group in found.plan.groups)


@pytest.mark.long
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 999), st.sampled_from(["module", "graph"]))
@settings(max_examples=25)
def test_nobody_notices_what_goes(name: str, seed: int, target: Literal["module", "graph"]) -> None:
    proves(*build(name, torch.float64, seed), target, seed)


@pytest.mark.long
@given(st.integers(0, 500), st.sampled_from(["module", "graph"]))
@settings(max_examples=15)
def test_nobody_notices_what_goes_from_programs(
    seed: int, target: Literal["module", "graph"]
) -> None:
    written = write(seed, length=5)
    model = written.model().eval().double()
    randomise(model, seed)
    (x,) = written.inputs()
    proves(model, (x.double() if x.is_floating_point() else x,), target, seed)


SEQUENCES: dict[str, Any] = {
    "lstm": lambda: nn.LSTM(4, 4, batch_first=True),
    "two-way lstm": lambda: nn.LSTM(4, 2, num_layers=2, bidirectional=True, batch_first=True),
    "projected lstm": lambda: nn.LSTM(4, 6, proj_size=4, batch_first=True),
    "gru": lambda: nn.GRU(4, 4, batch_first=True),
    "rnn": lambda: nn.RNN(4, 4, batch_first=True),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0, batch_first=True),
}


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("seed", range(3))
def test_nobody_notices_what_goes_from_sequences(kind: str, seed: int) -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        y = m.middle(m.first(x))
        return m.last(y if isinstance(y, torch.Tensor) else y[0])

    torch.manual_seed(seed)
    parts = {"first": nn.Linear(3, 4), "middle": SEQUENCES[kind](), "last": nn.Linear(4, 2)}
    model = Net(run, **parts).eval().double()
    randomise(model, seed)
    proves(model, (torch.randn(2, 4, 3).double(),), "module", seed)


def test_recurrent_units_go_if_nothing_reads_them_and_they_start_at_zero() -> None:
    torch.manual_seed(0)
    model = Net(lambda m, x: m.b(m.a(x)[0]), a=nn.LSTM(3, 5, batch_first=True), b=nn.Linear(5, 2))
    model.eval().double()
    x = torch.randn(2, 4, 3).double()
    keep = torch.ones(2, 5).double()
    keep[:, 2] = 0
    prune.custom_from_mask(model.b, "weight", keep)
    seen = from_masks(model, x)
    assert not removed(seen)  # the other units read it
    with torch.no_grad():
        model.a.weight_hh_l0[:, 2] = 0
    found = from_masks(model, x)
    assert [*removed(found).values()] == [(2,)]
    smaller = planc.apply(found.plan, model)
    assert torch.allclose(smaller(x), model(x), rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_many_units_go_in_all(seed: int) -> None:
    model, inputs = build("residual", torch.float64, seed)
    assert sum(proves(model, inputs, "module", 10 * seed + i) for i in range(5)) > 5


def test_bad_requests_are_named() -> None:
    model = masked_model(m3_weight_1=SOME)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.inf
    with pytest.raises(PolicyError, match=r"0\.weight has values that are NaN or inf"):
        from_masks(model, IMAGES)
    model = net()
    masks = select(model, PerTensor(0.5))
    with pytest.raises(StalePlan, match="other tensors"):
        from_masks(build("residual")[0], IMAGES, masks=masks)
    nothing: Mapping[str, Any] = {}
    empty = from_masks(model, IMAGES, masks=mask_plan(tensors_of(model), nothing))
    assert not removed(empty)
    assert empty.refused == ()
    with pytest.raises(PlancError, match="meta device"):
        from_masks(masked_model(m3_weight_1=SOME).to("meta"), IMAGES.to("meta"))


def test_the_same_masks_give_the_same_plan() -> None:
    plans = [from_masks(masked_model(m3_weight_1=SOME), IMAGES).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].provenance[0].criterion == "masks"
