"""Elements are chosen by exact counts, the lowest scores first, the same ones every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from planc.errors import PolicyError
from planc.masks import (
    ElementMagnitude,
    GlobalElements,
    MaskPolicy,
    NofM,
    PerTensor,
    RandomElements,
    select,
)
from planc.masks.policies import Scores
from tests.support.small import build
from tests.support.strategies import settings  # noqa: F401


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 12))


@st.composite
def scores(draw: st.DrawFn) -> Scores:
    """Scores with many equal ones among them."""
    drawn = {}
    for i in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
        size = math.prod(shape)
        values = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
        drawn[f"w{i}"] = np.array(values, dtype=np.float32).reshape(shape)
    return drawn


@given(scores(), st.floats(0, 0.99))
def test_each_tensor_loses_its_lowest_elements(drawn: Scores, ratio: float) -> None:
    for name, removed in PerTensor(ratio)(drawn).items():
        flat, gone = drawn[name].reshape(-1), removed.reshape(-1)
        count = math.floor(ratio * flat.size + 1e-9)
        lowest = np.argsort(flat, kind="stable")[:count]  # the first ones among equals
        assert np.flatnonzero(gone).tolist() == sorted(lowest.tolist())


@given(scores(), st.floats(0, 0.99), st.sampled_from([1.0, 0.7, 0.3]))
def test_all_tensors_compete(drawn: Scores, ratio: float, largest: float) -> None:
    found = GlobalElements(ratio, largest)(drawn)
    allowed = PerTensor(largest)(drawn) if largest < 1 else {}
    every = [
        (float(value), i, place)
        for i, (name, values) in enumerate(drawn.items())
        for place, value in enumerate(values.reshape(-1))
        if largest == 1 or allowed[name].reshape(-1)[place]
    ]
    total = sum(values.size for values in drawn.values())
    lowest = sorted(every)[: math.floor(ratio * total + 1e-9)]
    expected = {(i, place) for _, i, place in lowest}
    assert expected == {
        (i, int(place))
        for i, removed in enumerate(found.values())
        for place in np.flatnonzero(removed.reshape(-1))
    }


@given(
    st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(0, 99), st.integers(-2, 1)
)
def test_of_m_consecutive_elements_the_n_highest_stay(
    n: int, more: int, blocks: int, seed: int, dim: int
) -> None:
    m = n + more
    shape = (m * blocks, 3) if dim % 2 == 0 else (3, m * blocks)
    values = np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32)
    removed = NofM(n, m, dim)({"w": values})["w"]
    lines = values.T if dim % 2 == 0 else values
    gone = removed.T if dim % 2 == 0 else removed
    for line, away in zip(lines, gone, strict=True):
        for at in range(0, m * blocks, m):
            block, off = line[at : at + m], away[at : at + m]
            assert (~off).sum() == n
            assert block[~off].min() >= block[off].max(initial=-1)


@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_magnitude_agrees_with_torch(amount: float) -> None:
    model = net()
    masks = select(model, PerTensor(amount))
    for path in ("0", "3"):
        module = model.get_submodule(path)
        prune.l1_unstructured(module, "weight", amount)
        expected = (module.get_buffer("weight_mask") == 0).numpy()
        assert np.array_equal(masks.elements(f"{path}.weight"), expected)
    masks = select(net(), GlobalElements(amount))
    model = net()
    both = [(model[0], "weight"), (model[3], "weight")]
    prune.global_unstructured(both, prune.L1Unstructured, amount=amount)
    for path in ("0", "3"):
        expected = (model.get_submodule(path).get_buffer("weight_mask") == 0).numpy()
        assert np.array_equal(masks.elements(f"{path}.weight"), expected)


@pytest.mark.parametrize("policy", [PerTensor(0.5), GlobalElements(0.5), NofM(2, 4)], ids=str)
@pytest.mark.parametrize("criterion", [None, RandomElements(3)])
def test_equal_models_give_equal_plans(
    policy: MaskPolicy, criterion: RandomElements | None
) -> None:
    assert select(net(), policy, criterion) == select(net(), policy, criterion)


def test_random_scores_depend_on_seed_and_name_alone() -> None:
    one = select(net(), PerTensor(0.5), RandomElements(0), only=("3",))
    both = select(net(), PerTensor(0.5), RandomElements(0))
    assert one.by_name["3.weight"] == both.by_name["3.weight"]
    assert both.masks != select(net(), PerTensor(0.5), RandomElements(1)).masks


def test_any_function_is_a_criterion_and_the_plan_says_which() -> None:
    def last_first(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return -torch.arange(float(tensor.numel())).reshape(tensor.shape)

    masks = select(net(), PerTensor(0.5), last_first, only=("3.weight",), seed=7)
    flat = masks.elements("3.weight").reshape(-1)
    assert not flat[:48].any()
    assert flat[48:].all()
    assert masks.provenance[0].policy == "unstructured(0.5)"
    assert masks.provenance[0].seed == 7
    assert str(ElementMagnitude()) == "magnitude"


def test_weights_are_chosen_and_patterns_choose_others() -> None:
    def chosen(**patterns: tuple[str, ...]) -> set[str]:
        return set(select(net(), PerTensor(0.5), **patterns).by_name)

    assert chosen() == {"0.weight", "3.weight"}
    assert chosen(keep=("3",)) == {"0.weight"}
    assert chosen(only=("1", "3.*")) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert chosen(only=("3.*",), keep=("*.bias",)) == {"3.weight"}
    with pytest.raises(PolicyError, match=r"'3\.wieght' matches no parameter; near misses: 3\.w"):
        chosen(keep=("3.wieght",))


def test_a_tied_parameter_is_chosen_once() -> None:
    model, _ = build("tied")
    masks = select(model, PerTensor(0.5))
    tied = [spec for spec in masks.tensors if len(spec.names) > 1]
    assert tied
    for spec in tied:
        elements = [masks.elements(name) for name in spec.names]
        assert all(np.array_equal(elements[0], other) for other in elements)


def test_masked_elements_go_first_when_a_masked_model_is_pruned_further() -> None:
    model = net()
    prune.random_unstructured(model[3], "weight", 0.4)
    hidden = (model[3].get_buffer("weight_mask") == 0).numpy()
    masks = select(model, PerTensor(0.5))
    assert (masks.elements("3.weight_orig") >= hidden).all()


def test_what_cannot_be_chosen_is_named() -> None:
    model = net()
    for policy, words in (
        (PerTensor(1.0), "ratio 1.0"),
        (GlobalElements(-0.1), "ratio -0.1"),
        (GlobalElements(0.5, largest=2.0), "largest 2.0"),
        (NofM(5, 4), "5:4"),
        (NofM(0, 4), "n 0"),
        (NofM(1, 3), r"0.weight has 4 elements along dimension 1, not a multiple of 3"),
        (NofM(2, 4, dim=2), r"0.weight has 3 elements along dimension 2"),
        (NofM(2, 4, dim=3), r"0.weight has 3 elements along dimension 3"),
        (NofM(2, 4, dim=9), r"0.weight has shape \[8, 4, 3, 3\] and no dimension 9"),
    ):
        with pytest.raises(PolicyError, match=words):
            select(model, policy)
    with pytest.raises(PolicyError, match=r"keep=\('0.weight',\)"):
        select(model, NofM(1, 3))
    with torch.no_grad():
        model[3].weight[2, 5] = math.nan
    with pytest.raises(PolicyError, match=r"3\.weight has a score that is not finite at \(2, 5\)"):
        select(model, PerTensor(0.5))
    with pytest.raises(PolicyError, match=r"0\.weight has shape .* its scores are torch.float32"):
        select(net(), PerTensor(0.5), lambda name, tensor: tensor.sum())
    with pytest.raises(PolicyError, match="meta device"):
        select(net().to("meta"), PerTensor(0.5))
    with pytest.raises(PolicyError, match="seed -1"):
        select(net(), PerTensor(0.5), seed=-1)


def test_a_model_with_nothing_to_choose_from_loses_nothing() -> None:
    empty = nn.Linear(0, 3, bias=False)
    for policy in (PerTensor(0.5), GlobalElements(0.5), NofM(2, 4)):
        assert select(empty, policy).masks == ()
        assert select(nn.BatchNorm2d(3), policy).masks == ()
