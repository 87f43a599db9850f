"""Encoders, encoder-decoders, models of images and sound from transformers: what of them shrinks.

A handful of types; ``python -m tests.scripts.sweep --zoo transformers`` takes them all.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.plan.plan import Plan
from tests.support.proving import together

pytest.importorskip("transformers")

from tests.zoo import transformers as zoo

torch.set_num_threads(1)


class Answer(nn.Module):
    """A model of which only the logits count, whatever else it returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **arguments: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**arguments).logits
        return logits


def pruned(model: nn.Module, inputs: dict[str, Any], **options: Any) -> tuple[Plan, nn.Module]:
    """The model at half of everything, verified."""
    plan = planc.compile(model, (), inputs, ratio=0.5, **options)
    smaller = planc.apply(plan, model, args=(), kwargs=inputs)
    planc.verify(plan, model, smaller, (), inputs)
    return plan, smaller


def kept(plan: Plan, *places: str) -> list[int]:
    """How much of each place stays, in percent, whole rows aside."""
    shares = []
    for place in places:
        tensor, _, dim = place.rpartition(":")
        (group,) = (
            group
            for group in plan.groups
            if group.kind not in ("heads", "groups")
            and any((m.tensor, m.dim) == (tensor, int(dim)) for m in group.members)
        )
        shares.append(100 * (group.size - len(group.removed)) // group.size)
    return shares


BERT = "bert.encoder.layer.1."
HALVES: dict[str, tuple[str, ...]] = {
    "bert": (
        "bert.embeddings.word_embeddings.weight:1",
        f"{BERT}intermediate.dense.weight:0",
        f"{BERT}attention.self.query.weight:0",
        f"{BERT}attention.self.value.weight:0",
    ),
    "deberta_v2": (
        "deberta.embeddings.word_embeddings.weight:1",
        "deberta.encoder.layer.0.attention.self.query_proj.weight:0",
        "deberta.encoder.layer.0.intermediate.dense.weight:0",
    ),
    "focalnet": ("focalnet.embeddings.patch_embeddings.projection.weight:0",),
    "whisper": ("model.encoder.conv1.weight:0", "model.decoder.layers.0.fc1.weight:0"),
    "wav2vec2": (
        "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1:0",
        "wav2vec2.feature_extractor.conv_layers.0.conv.weight:0",
    ),
    "nystromformer": ("nystromformer.encoder.layer.0.attention.self.query.weight:0",),
}


@pytest.mark.long
@pytest.mark.parametrize("name", HALVES)
def test_half_of_each_width_goes(name: str) -> None:
    plan, smaller = pruned(zoo.build(name), zoo.example_inputs(name), loadable=False)
    assert kept(plan, *HALVES[name]) == [50] * len(HALVES[name])
    assert plan.cost_after.params == sum(p.numel() for p in smaller.parameters())


@pytest.mark.long
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_heads_go_where_they_are_asked_for(name: str) -> None:
    plan, _ = pruned(zoo.build(name), zoo.example_inputs(name), kinds={"heads": 0.5})
    heads = [group for group in plan.groups if group.kind == "heads"]
    assert [(group.size, len(group.removed)) for group in heads] == [(4, 2)] * 2


def test_the_width_of_an_encoder_decoder_shrinks_where_only_its_answer_counts() -> None:
    inputs = zoo.example_inputs("t5")
    whole = planc.analyze(planc.trace(zoo.build("t5"), (), inputs))
    assert not together(whole, "shared.weight:1")  # it returns what the encoder last thought
    model = Answer(zoo.build("t5"))
    # the class multiplies by a root of the width, so that no configuration describes the result
    plan, _ = pruned(model, inputs, kinds={"heads": 0.5}, loadable=False)
    assert kept(plan, "model.shared.weight:1") == [50]
    heads = [group for group in plan.groups if group.kind == "heads"]
    assert len(heads) == 3  # of the encoder, of the decoder, and between them
    assert all(2 * len(group.removed) == group.size for group in plan.groups)


def test_heads_that_share_a_table_of_relative_positions_go_together() -> None:
    found = planc.analyze(planc.trace(zoo.build("mpnet"), (), zoo.example_inputs("mpnet")))
    attention = [f"mpnet.encoder.layer.{i}.attention.attn.q.weight:0" for i in (0, 1)]
    assert together(found, "mpnet.encoder.relative_attention_bias.weight:1", *attention)


def test_layers_that_share_their_weights_are_pruned_as_one() -> None:
    plan, smaller = pruned(zoo.build("albert"), zoo.example_inputs("albert"))
    names = {member.tensor for group in plan.groups for member in group.members}
    assert "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight" in names
    assert kept(plan, "albert.encoder.embedding_hidden_mapping_in.weight:0") == [50]
    assert isinstance(smaller, nn.Module)
