"""What a mask plan removes is zero, what it keeps is untouched, and all of it comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.sparse import SparseSemiStructuredTensor, SparseSemiStructuredTensorCUTLASS

import planc
from planc.errors import PlancError, StalePlan
from planc.masks import Form, NofM, PerTensor, after, apply, restore, select
from planc.modules.tables import tensors_of
from planc.plan.masks import MaskPlan, mask_plan
from tests.masks.drawn import settings
from tests.support.small import MODELS, build, contents, storages

ANYWHERE: tuple[Form, ...] = ("zeros", "csr", "coo")


def drawn(model: nn.Module, seed: int) -> MaskPlan:
    """Random masks on random parameters and buffers."""
    rng = np.random.default_rng(seed)
    tensors = tensors_of(model)
    share = {spec.name: rng.choice([0, 0.2, 0.7, 1.0]) for spec in tensors}
    removed = {spec.name: rng.random(spec.shape) < share[spec.name] for spec in tensors}
    return mask_plan(tensors, {name: np.asarray(found) for name, found in removed.items()})


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 99), st.sampled_from(ANYWHERE))
@settings(max_examples=25)
def test_what_was_removed_comes_back_bit_for_bit(name: str, seed: int, form: Form) -> None:
    model, _ = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[:2] = torch.tensor([-0.0, math.nan])[: parameter.numel()]
    masks, before = drawn(model, seed), contents(model)
    masked, removed = apply(masks, model, form=form, keep_removed=True)
    assert contents(model) == before
    assert contents(restore(masks, masked, removed)) == before
    state = model.state_dict()
    masked_state, removed = apply(masks, state, form=form, keep_removed=True)
    back = restore(masks, masked_state, removed)
    assert {key: value.tolist().__repr__() for key, value in back.items()} == {
        key: value.tolist().__repr__() for key, value in state.items()
    }


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 99))
@settings(max_examples=25)
def test_removed_elements_are_zero_and_others_untouched(name: str, seed: int) -> None:
    model, _ = build(name)
    masks = drawn(model, seed)
    masked = apply(masks, model)
    assert not storages(masked) & storages(model)
    after_ = dict(masked.state_dict(keep_vars=True))
    for key, value in model.state_dict(keep_vars=True).items():
        gone = torch.from_numpy(masks.elements(key))
        assert torch.equal(after_[key].detach(), value.detach().masked_fill(gone, 0))
        assert after_[key].requires_grad == value.requires_grad
    assert contents(apply(masks, masked)) == contents(masked)


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 99))
@settings(max_examples=15)
def test_one_after_another_is_both_together(name: str, seed: int) -> None:
    model, _ = build(name)
    a, b = drawn(model, seed), drawn(model, seed + 1)
    assert contents(apply(b, apply(a, model))) == contents(apply(a | b, model))
    nothing = a - a
    assert nothing.masks == ()
    assert contents(apply(nothing, model)) == contents(model)


@given(st.sampled_from(sorted(MODELS)), st.integers(0, 99))
@settings(max_examples=15)
def test_masks_and_plans_exchange(name: str, seed: int) -> None:
    """after(plan, masks) is what is left of the masks where the plan has been applied."""
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.4, criterion="random", seed=seed)
    masks = drawn(model, seed)
    smaller = planc.apply(plan, model, validate=False)
    left = after(plan, masks)
    assert left.tensors == tensors_of(smaller)
    one_way = apply(left, smaller)
    assert contents(one_way) == contents(planc.apply(plan, apply(masks, model), validate=False))


def test_linear_layers_run_with_compressed_rows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    masks = select(model, PerTensor(0.7))
    rows = apply(masks, model, form="csr")
    assert rows[0].weight.layout is torch.sparse_csr
    assert rows[0].weight.values().numel() == 128 - masks.by_name["0.weight"].count
    x = torch.randn(3, 16)
    assert torch.allclose(rows(x), apply(masks, model)(x), atol=1e-6)
    state = apply(masks, model.state_dict(), form="coo")
    assert state["0.weight"].layout is torch.sparse_coo
    assert torch.equal(state["0.weight"].to_dense(), apply(masks, model)[0].weight)


def half() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).half().eval()
    with torch.no_grad():
        model[0].weight[0, :8] = -0.0
    return model


def test_semi_structured_tensors_want_a_gpu_and_two_of_four() -> None:
    model = half()
    masks = select(model, NofM(2, 4))
    with pytest.raises(PlancError, match=r"0\.weight .*CUDA devices and this one is on cpu"):
        apply(masks, model, form="semi-structured")
    with pytest.raises(PlancError, match=r"0\.weight keeps 4 of 4 consecutive elements in row"):
        apply(select(model, PerTensor(0.2)), model, form="semi-structured")
    narrow = nn.Linear(6, 8).half()
    with pytest.raises(PlancError, match=r"weight has shape \(8, 6\)"):
        apply(select(narrow, PerTensor(0.9)), narrow, form="semi-structured")


def test_semi_structured_tensors_come_back_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch packs and unpacks 2:4 tensors in Python: that part runs without a GPU."""
    kind = SparseSemiStructuredTensorCUTLASS
    anything = classmethod(lambda cls, tensor: None)
    monkeypatch.setattr(kind, "_validate_device_dim_dtype_shape", anything)
    monkeypatch.setattr(SparseSemiStructuredTensor, "_FORCE_CUTLASS", True)
    model = half()
    masks = select(model, NofM(2, 4))
    packed, removed = apply(masks, model, form="semi-structured", keep_removed=True)
    assert isinstance(packed[0].weight, kind)
    assert isinstance(packed[0].weight, nn.Parameter)
    assert torch.equal(packed[0].weight.to_dense(), apply(masks, model)[0].weight)
    assert contents(restore(masks, packed, removed)) == contents(model)


def test_stale_plans_and_other_targets_are_named() -> None:
    model, other = nn.Linear(4, 3), nn.Linear(4, 2)
    masks = select(model, PerTensor(0.5))
    _, removed = apply(masks, model, keep_removed=True)
    for target in (other, other.state_dict()):
        with pytest.raises(StalePlan, match=r"weight: expected shape \(3, 4\), found \(2, 4\)"):
            apply(masks, target)
        with pytest.raises(StalePlan, match="made for other tensors"):
            restore(masks, target, removed)
    with pytest.raises(PlancError, match="not to list"):
        apply(masks, [model])  # type: ignore[type-var]
    with pytest.raises(PlancError, match=r"form 'dense': choose one of zeros, csr, coo"):
        apply(masks, model, form="dense")  # type: ignore[call-overload]
    masked, removed = apply(masks, model, keep_removed=True)
    fewer = select(model, PerTensor(0.25))
    with pytest.raises(StalePlan, match=r"6 removed values of torch\.float32 for 3 removed"):
        restore(fewer, masked, removed)
    sparse = apply(masks, model, form="csr")
    with pytest.raises(StalePlan, match="a sparse tensor of 6 values, the mask plan keeps 9"):
        restore(fewer, sparse, apply(fewer, model, keep_removed=True)[1])
