"""Histories of Torch-Pruning become plans with the tensors of its models, or name what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v2, resnet18
from torchvision.models.densenet import DenseNet

import planc
from planc.errors import PolicyError
from planc.plan.plan import Plan
from tests.support.peers import pruned
from tests.support.small import build, randomised

IMAGES = torch.zeros(1, 3, 16, 16)
SMALL = torch.zeros(1, 3, 32, 32)


def check_tensors(plan: Plan, model: nn.Module, smaller: nn.Module) -> None:
    found, expected = planc.apply(plan, model).state_dict(), smaller.state_dict()
    assert found.keys() == expected.keys()
    assert plan.cost_after.params < plan.cost_before.params
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def vit() -> nn.Module:
    return VisionTransformer(16, 8, 2, 4, 16, 32, num_classes=5)


def dense() -> nn.Module:
    return DenseNet(4, (2, 2), 8, num_classes=5)


@pytest.mark.parametrize(
    ("make", "last", "options"),
    [
        (lambda: resnet18(num_classes=5), "fc", {}),
        (lambda: resnet18(num_classes=5), "fc", {"steps": 3, "global_pruning": True}),
        (dense, "classifier", {}),
        (dense, "classifier", {"steps": 3, "global_pruning": True}),
        (lambda: mobilenet_v2(num_classes=5, width_mult=0.25), "classifier.1", {"steps": 2}),
        (lambda: build("grouped")[0], "head", {"steps": 2}),
        (lambda: build("up")[0], "out", {}),
    ],
    ids=["resnet", "resnet-global", "dense", "dense-global", "mobilenet", "grouped", "up"],
)
def test_a_history_gives_the_tensors_of_its_model(
    make: Callable[[], nn.Module], last: str, options: dict[str, Any]
) -> None:
    model = randomised(make().eval())
    smaller, history = pruned(model, last, SMALL, **options)
    check_tensors(planc.from_history(model, SMALL, history=history), model, smaller)


def attention(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 4)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_inside_of_an_attention_follows_its_stream(steps: int) -> None:
    model = randomised(vit().eval())
    heads = attention(*(f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2)))
    smaller, history = pruned(model, "heads.head", IMAGES, steps, channel_groups=heads)
    check_tensors(planc.from_history(model, IMAGES, history=history), model, smaller)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prune_num_heads": True, "head_pruning_ratio": 0.5, "prune_head_dims": False},
        {"prune_num_heads": True, "head_pruning_ratio": 0.5},
    ],
    ids=["dims", "heads", "both"],
)
def test_heads_and_their_dimensions_go_as_they_did(options: dict[str, Any]) -> None:
    model, (inputs,) = build("attention")
    heads = attention("queries", "keys", "values")
    smaller, history = pruned(model, "head", inputs, num_heads=heads, **options)
    plan = planc.from_history(model, inputs, history=history)
    check_tensors(plan, model, smaller)
    planc.verify(plan, model, planc.apply(plan, model), inputs)


def test_indices_are_those_of_the_layer_after_the_steps_before() -> None:
    model, inputs = build("residual")
    history = [["blocks.0.0", True, [0, 1]], ["blocks.0.3", False, [0]], ["blocks.0.1", True, [1]]]
    plan = planc.from_history(model, inputs, history=history)
    (group,) = (group for group in plan.groups if group.removed)
    assert group.name == "blocks.0.0.weight:0"
    assert tuple(group.removed) == (0, 1, 2, 4)
    assert (plan.provenance[0].criterion, plan.provenance[0].policy) == ("history", "from_history")


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_steps_compose_like_the_lists_they_index(data: st.DataObject) -> None:
    left, history = list(range(8)), []
    for _ in range(data.draw(st.integers(1, 4))):
        most = min(3, len(left) - 1)
        drawn = st.lists(st.integers(0, len(left) - 1), max_size=most, unique=True)
        chosen = data.draw(drawn)
        history.append(("stem.0", True, chosen))
        left = [unit for i, unit in enumerate(left) if i not in chosen]
    model, inputs = build("residual")
    plan = planc.from_history(model, inputs, history=history)
    stream = next(group for group in plan.groups if group.name == "stem.0.weight:0")
    assert sorted({*range(8)} - {*stream.removed}) == left


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([["stem.0", True, [1, 8]]], r"history\[0\] \('stem.0', outputs\), index 8: .* 8 left"),
        (
            [["stem.0", True, [7]], ["stem.0", True, [7]]],
            r"history\[1\].*index 7: .* 7 left",
        ),
        ([["stem.0", True, [2, 2]]], "index 2: it is named twice"),
        ([["stem.0", False, [1]]], r"index 1: stem.0.weight:1 never loses it: "),
        ([["head", True, [3]]], r"index 3: head.weight:0 never loses it: "),
        ([["head", False, [5]]], "index 5: index 4 belongs to the same unit and would stay"),
        ([["blocks.1.0", True, [3, 0, 1, 2]]], "index 2: .* loses more than the 3"),
        ([["stem.9", True, [0]]], r"history\[0\]: the model has no layer 'stem.9'"),
        ([["stem.2", True, [0]]], r"history\[0\]: layer 'stem.2' \(ReLU\) has no"),
        ([["stem.0", 1, [0]]], r"history\[0\]: expected \[name, is_out, indices\]"),
        ([["stem.0", True, ["a"]]], r"history\[0\]: expected"),
        ({"stem.0": [0]}, "history: expected the list"),
    ],
)
def test_the_first_wrong_index_is_named(history: Any, said: str) -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=said):
        planc.from_history(model, inputs, history=history)


def test_heads_cut_unequally_are_refused() -> None:
    model = randomised(vit().eval())
    _, history = pruned(model, "heads.head", IMAGES)  # indices without regard to the heads
    with pytest.raises(PolicyError, match=r"history\[0\].*row \d of .*in_proj_weight"):
        planc.from_history(model, IMAGES, history=history)


def test_the_second_record_of_one_removal_is_found() -> None:
    tp = pytest.importorskip("torch_pruning")
    model, (inputs,) = build("residual")
    smaller = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(smaller, inputs)
    layer = smaller.get_submodule("stem.0")
    group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(8)))
    group.prune(idxs=[1, 2])
    with pytest.raises(PolicyError, match=r"history\[1\].*index 6: .*records a step twice"):
        planc.from_history(model, inputs, history=graph.pruning_history())
    plan = planc.from_history(model, inputs, history=graph.pruning_history()[:1])
    check_tensors(plan, model, smaller)


def test_outputs_shrink_on_request() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1))
    history = [["2", True, [1, 4]]]
    with pytest.raises(PolicyError, match="index 1"):
        planc.from_history(model, SMALL, history=history)
    plan = planc.from_history(model, SMALL, history=history, free_outputs="")
    assert [tuple(change.kept) for change in plan.outputs] == [(0, 2, 3, 5)]


def test_parameters_and_other_layers_name_dimensions_too() -> None:
    model, inputs = build("vit")
    names = dict(model.named_parameters())
    position = next(name for name in names if "pos_embedding" in name)
    wanted = [{tuple(group.removed) for group in plan.groups if group.removed} for plan in (
        planc.from_history(model, inputs, history=[["conv_proj", True, unequal(model)]]),
        planc.from_history(model, inputs, history=[[position, True, unequal(model)]]),
        planc.from_history(model, inputs, history=[["encoder.ln", False, unequal(model)]]),
    )]  # fmt: skip
    assert wanted[0] == wanted[1] == wanted[2]


def unequal(model: nn.Module) -> list[int]:
    """The first dimension of every head."""
    first = next(m for m in model.modules() if isinstance(m, nn.MultiheadAttention))
    return list(range(0, first.embed_dim, first.embed_dim // first.num_heads))


def test_groups_of_a_convolution_lose_the_same_positions() -> None:
    model, inputs = build("grouped")
    plan = planc.from_history(model, inputs, history=[["first", True, [1, 5, 9]]])
    assert [group.removed for group in plan.groups if group.removed] == [(1, 5, 9)]
    with pytest.raises(PolicyError, match=r"index 10: .*grouped.weight in all groups"):
        planc.from_history(model, inputs, history=[["first", True, [1, 5, 10]]])
    rows = [["first", True, [1, 5, 9]], ["first", True, [0, 4]]]
    with pytest.raises(PolicyError, match=r"history\[1\].*index 0: row 0 of first.weight:0"):
        planc.from_history(model, inputs, history=rows)


class Rotary(nn.Module):
    """Rotated queries, two to a key and value: all heads share the cells of queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.q, self.k = nn.Linear(6, 8), nn.Linear(8, 16), nn.Linear(8, 8)
        self.v, self.o, self.last = nn.Linear(8, 8), nn.Linear(16, 8), nn.Linear(8, 3)
        self.register_buffer("cos", torch.rand(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.e(x)
        q, k, v = (p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = (t * self.cos + t.flip(-1) * self.cos for t in (q, k))
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.last(x + self.o(y.transpose(1, 2).flatten(2)))


HEADS, QUERIES, STREAM = "q.weight:0/heads", "q.weight:0/query_heads", "e.weight:0"


@pytest.mark.parametrize(
    ("steps", "removed"),
    [
        ([("k", True, [0, 1, 2, 3])], {HEADS: (0,)}),
        ([("q", True, [*range(8, 16)])], {HEADS: (1,)}),
        ([("v", True, [4, 5, 6, 7])], {HEADS: (1,)}),
        ([("q", True, [4, 5, 6, 7, 12, 13, 14, 15])], {QUERIES: (1,)}),
        ([("o", False, [0, 1, 2, 3, 8, 9, 10, 11])], {QUERIES: (0,)}),
        ([("e", True, [0, 7])], {STREAM: (0, 7)}),
        ([("k", True, [4, 5, 6, 7]), ("e", True, [1])], {HEADS: (1,), STREAM: (1,)}),
        ([("k", True, [0, 1, 2, 3]), ("q", True, [4, 5, 6, 7])], {HEADS: (0,), QUERIES: (1,)}),
    ],
)
def test_heads_that_share_their_cells_are_whole(
    steps: list[Any], removed: dict[str, tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    model, tokens = Rotary().eval(), torch.randn(2, 5, 6)
    plan = planc.from_history(model, tokens, history=steps)
    assert {g.name: tuple(g.removed) for g in plan.groups if g.removed} == removed
    planc.verify(plan, model, planc.apply(plan, model), tokens)


def test_half_of_a_head_that_shares_its_cells_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"\('k', outputs\), index \d: index \d belongs to"):
        planc.from_history(Rotary().eval(), torch.randn(2, 5, 6), history=[("k", True, [0, 1])])
