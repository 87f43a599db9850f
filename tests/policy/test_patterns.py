"""Patterns: one rule says which groups a text names, for every option that takes one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.errors import PolicyError
from planc.policy import matching
from tests.support.small import build

STREAM, FIRST, SECOND = "stem.0.weight:0", "blocks.0.0.weight:0", "blocks.1.0.weight:0"


def pruned(model: nn.Module, inputs: Any, **options: Any) -> set[str]:
    plan = planc.compile(model, inputs, **options)
    return {group.name for group in plan.groups if group.removed}


@pytest.mark.parametrize(
    ("pattern", "alone", "kept"),
    [
        (STREAM, {STREAM}, {STREAM}),  # a group
        ("blocks.0.3.weight:0", {STREAM}, {STREAM}),  # another dimension of a group
        ("blocks.1.0", {SECOND}, {SECOND}),  # a module
        ("blocks.1.1", {SECOND}, {SECOND}),  # a norm follows
        ("blocks.?.1.running_mean", {FIRST, SECOND}, {FIRST, SECOND}),  # tensors
        ("blocks.0.3", {STREAM}, {STREAM}),  # one layer of a residual stream
        ("blocks.0", {FIRST}, {STREAM, FIRST}),  # a block writes to the stream in part
        ("blocks.*", {FIRST, SECOND}, {STREAM, FIRST, SECOND}),
        ("stem*", {STREAM}, {STREAM}),
        ("head:in", {STREAM}, {STREAM}),  # inputs on request
        ("blocks.0.0:in", {STREAM}, {STREAM}),
        ("blocks.0.0:out", {FIRST}, {FIRST}),
        ("*", {STREAM, FIRST, SECOND}, {STREAM, FIRST, SECOND}),
    ],
)
def test_a_pattern_names_the_same_groups_for_every_option(
    pattern: str, alone: set[str], kept: set[str]
) -> None:
    model, inputs = build("residual")
    assert pruned(model, inputs, only=pattern) == alone
    assert pruned(model, inputs, ratio=0.0, ratios={pattern: 0.5}) == alone
    if kept == {STREAM, FIRST, SECOND}:
        with pytest.warns(planc.errors.PlancWarning, match="every group stays whole"):
            assert not pruned(model, inputs, keep=pattern)
    else:
        assert pruned(model, inputs, keep=pattern) == {STREAM, FIRST, SECOND} - kept


def test_patterns_that_name_all_producers_together_name_their_group() -> None:
    model, inputs = build("residual")
    assert pruned(model, inputs, only=["stem", "blocks.*"]) == {STREAM, FIRST, SECOND}
    assert pruned(model, inputs, only=["blocks.*", STREAM]) == {STREAM, FIRST, SECOND}
    assert pruned(model, inputs, only=["blocks.0", "blocks.1"]) == {FIRST, SECOND}


def test_a_reader_keeps_its_outputs_not_what_feeds_it() -> None:
    model, inputs = build("residual")
    assert pruned(model, inputs, keep="head") == {STREAM, FIRST, SECOND}
    for options in ({"only": "head"}, {"ratios": {"head": 0.5}}):
        with pytest.raises(PolicyError) as refusal:
            pruned(model, inputs, **options)
        said = str(refusal.value)
        assert said.startswith("pattern 'head' names no group that may shrink: head.weight:0: ")
        assert "it reads group stem.0.weight:0 (8 channels): name that, or 'head:in'" in said


def test_a_layer_feeds_only_itself_through_a_depthwise_convolution() -> None:
    model, inputs = build("depthwise")
    expanded = "expand.weight:0"
    for pattern in ("expand", "depthwise", "norm", "project:in"):
        assert pruned(model, inputs, only=pattern) == {expanded}
    assert expanded not in pruned(model, inputs, keep="depthwise")


class Mlp(nn.Module):
    """Two gated layers on a stream of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {n: nn.Linear(8, 12) for n in ("gate", "up")} | {"down": nn.Linear(12, 8)}
            )
            for _ in range(2)
        )
        self.scale = nn.Parameter(torch.ones(1, 1, 8))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer["down"](layer["gate"](x).sigmoid() * layer["up"](x)) * self.scale
        return self.head(x)


def test_a_stream_with_producers_elsewhere_stays_whole() -> None:
    model, tokens = Mlp().eval(), torch.zeros(1, 3, dtype=torch.long)
    inside = {f"layers.{i}.gate.weight:0" for i in (0, 1)}
    assert pruned(model, tokens, only="layers.*") == inside
    assert pruned(model, tokens, only="layers.1.*") == {"layers.1.gate.weight:0"}
    assert pruned(model, tokens, only="*.up") == inside  # in part, as it names none wholly
    stream = {"scale:2"}
    assert pruned(model, tokens, only="*.down") == stream
    for pattern in ("head", "embed", "scale"):  # tied names, and a scale that follows
        assert pruned(model, tokens, ratio=0.0, ratios={pattern: 0.5}) == stream


class Written(nn.Module):
    """Weights used through transposes, einsum and plain products."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(6, 10))
        self.b = nn.Parameter(torch.randn(12, 10))
        self.c = nn.Parameter(torch.randn(14, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x @ self.a).relu() @ self.b.t()
        return torch.einsum("bi,oi->bo", x.relu(), self.c)


def test_weights_of_any_layout_produce_their_outputs() -> None:
    model, x = Written().eval(), torch.randn(2, 6)
    assert pruned(model, x, only="a") == {"a:1"}
    assert pruned(model, x, only="b") == {"b:0"}
    assert pruned(model, x, keep="b") == {"a:1"}
    assert pruned(model, x, keep="c:in") == {"a:1"}
    with pytest.raises(PolicyError, match="it reads group b:0"):
        pruned(model, x, only="c")


def test_matching_names_groups_by_number() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    assert matching(analysis, "blocks.1.*") == {2}
    with pytest.raises(PolicyError, match="near misses: blocks"):
        matching(analysis, "block.1.*")


@pytest.mark.parametrize("name", ["0.2", "blocks.?.2"])
def test_a_layer_without_tensors_is_answered_with_the_group_that_passes(name: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 6))
            self.blocks = nn.ModuleList([nn.Sequential(*layers)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    model: nn.Module = Block() if name.startswith("blocks") else nn.Sequential(Block().blocks[0])
    said = "names layers without tensors; the units of group .*0.0.weight:0 .* pass through"
    for options in ({"only": name}, {"keep": name}, {"remove": {name: [1]}}):
        with pytest.raises(PolicyError, match=said):
            planc.compile(model.eval(), torch.randn(2, 6), **options)
