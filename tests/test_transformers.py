"""Claims of decoders from the transformers library: pruned they verify, generate with a cache, and
have a configuration from which the library makes them anew.

A few types run here; ``python -m tests.scripts.sweep --zoo transformers`` takes all of them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.plan.plan import Plan

pytest.importorskip("transformers")

from tests.zoo import transformers as zoo

LLAMA = "llama"  # grouped-query attention, rotary embeddings, a gated MLP
# one-dimensional convolutions; fused projections cut by fields of the configuration; one key for
# all queries, in the same matrix; a mixture of experts
TYPES = (LLAMA, "gpt2", "phi3", "falcon", "mixtral")
WHOLE_HEAD_DIM = {"heads": 0.5, "head_dim": 0.0}


def pruned(name: str, **options: Any) -> tuple[nn.Module, Plan, nn.Module, dict[str, torch.Tensor]]:
    """A model, a plan for it that is proven, what it makes, and the inputs."""
    model, inputs = zoo.build(name), zoo.example_inputs(name)
    plan = planc.compile(model, (), inputs, ratio=0.5, **options)
    smaller = planc.apply(plan, model)
    report = planc.verify(plan, model, smaller, (), inputs)
    assert report.graph_error <= 1e-5
    return model, plan, smaller, inputs


def sizes(plan: Plan, kind: str) -> set[tuple[int, int]]:
    """Sizes of the groups of a kind, before and after."""
    return {(group.size, group.kept) for group in plan.groups if group.kind == kind}


@pytest.mark.long
@pytest.mark.parametrize("name", TYPES)
def test_stream_and_mlps_lose_half_and_heads_on_request(name: str) -> None:
    _, plan, smaller, _ = pruned(name, kinds={"heads": 0.5}, loadable=False)
    stream = next(group for group in plan.groups if group.kind == "features")
    assert (stream.size, stream.kept) == (64, 32)
    assert all(after * 2 == before for before, after in sizes(plan, "features"))
    assert all(after * 2 == before for before, after in sizes(plan, "heads"))
    assert all(after < before for before, after in sizes(plan, "head_dim"))
    assert plan.cost_after.params < 0.3 * plan.cost_before.params
    assert sum(p.numel() for p in smaller.parameters()) == plan.cost_after.params


@pytest.mark.long
@pytest.mark.parametrize("name", TYPES)
def test_generation_with_a_cache_is_that_without(name: str) -> None:
    _, _, smaller, _ = pruned(name, kinds={"heads": 0.5})
    prompt = {k: v[:, :7] for k, v in zoo.example_inputs(name, batch=2, seed=5).items()}

    def generated(use_cache: bool) -> torch.Tensor:
        options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        model: Any = smaller
        tokens = model.generate(**prompt, **options, eos_token_id=None, use_cache=use_cache)
        assert isinstance(tokens, torch.Tensor)
        return tokens

    assert generated(True).shape == (2, 15)
    assert generated(True).equal(generated(False))


@pytest.mark.long
@pytest.mark.parametrize("name", TYPES)
def test_other_batches_and_lengths_than_the_traced_ones(name: str) -> None:
    model, plan, smaller, _ = pruned(name)
    longer = {
        key: torch.cat([value, value.flip(1)], 1)
        for key, value in zoo.example_inputs(name, batch=3, seed=6).items()
    }
    report = planc.verify(plan, model, smaller, (), longer)
    assert report.graph_error <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_the_library_loads_what_it_saved_of_a_pruned_model(name: str, tmp_path: Path) -> None:
    _, plan, smaller, inputs = pruned(name, kinds=WHOLE_HEAD_DIM)
    fields = {c.name: (c.before, c.after) for c in plan.attributes if c.name.startswith("config.")}
    assert {(4, 2), (64, 32)} <= set(fields.values())
    saved: Any = smaller
    saved.save_pretrained(tmp_path)
    loaded = saved.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert loaded(**inputs).logits.equal(smaller(**inputs).logits)


@pytest.mark.long
def test_verification_makes_the_model_anew_from_its_configuration() -> None:
    model, plan, smaller, inputs = pruned(LLAMA, kinds=WHOLE_HEAD_DIM)
    report = planc.verify(plan, model, smaller, (), inputs)
    assert any("made anew from its configuration" in line for line in report.checks)


@pytest.mark.long
def test_what_no_configuration_describes_is_said() -> None:
    """The library computes rotary frequencies from the width of a head: not those that stay."""
    model, plan, smaller, inputs = pruned(LLAMA, loadable=False)
    assert sizes(plan, "head_dim") > {(8, 4)}
    report = planc.verify(plan, model, smaller, (), inputs)
    assert any("does not describe the pruned model" in line for line in report.checks)
    unread = {c.name for c in plan.attributes if c.name.startswith("config.")}
    assert not unread


@pytest.mark.long
def test_layers_that_end_unequally_wide_leave_the_configuration() -> None:
    first = "model.layers.0.mlp.*"
    _, plan, _, _ = pruned(LLAMA, kinds=WHOLE_HEAD_DIM, keep=first, loadable=False)
    assert not [change for change in plan.attributes if change.name.startswith("config.")]


@pytest.mark.long
def test_fields_that_the_forward_reads_follow_the_widths() -> None:
    """Phi-3 cuts its fused projection where the configuration says: both layers lose alike."""
    model, plan, smaller, _ = pruned("phi3", kinds={"heads": 0.5})
    change = next(c for c in plan.attributes if c.name == "config.num_attention_heads")
    assert (change.module, change.before, change.after) == ("", 4, 2)
    old, new = vars(model), vars(smaller)
    assert (old["config"].num_attention_heads, new["config"].num_attention_heads) == (4, 2)


def test_one_configuration_stays_one_and_the_original_keeps_its_own() -> None:
    model, inputs = zoo.build(LLAMA), zoo.example_inputs(LLAMA)
    before = copy.deepcopy(vars(model)["config"].to_dict())
    plan = planc.compile(model, (), inputs, ratio=0.5, kinds=WHOLE_HEAD_DIM)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    held = [vars(module)["config"] for module in smaller.modules() if "config" in vars(module)]
    assert len(held) > 5
    assert all(one is held[0] for one in held)
    assert vars(model)["config"].to_dict() == before
    restored = planc.restore(plan, smaller, removed)
    assert vars(restored)["config"].to_dict() == before


@pytest.mark.long
def test_plans_with_fields_are_read_as_they_were_written(tmp_path: Path) -> None:
    _, plan, _, _ = pruned(LLAMA, kinds=WHOLE_HEAD_DIM)
    planc.save_plan(plan, tmp_path / "llama.planc")
    assert planc.load_plan(tmp_path / "llama.planc") == plan


def test_experts_stay_for_a_router_picks_them_by_position() -> None:
    model, inputs = zoo.build("mixtral"), zoo.example_inputs("mixtral")
    analysis = planc.analyze(planc.trace(model, (), inputs))
    lines = analysis.explain("model.layers.0.mlp.experts.gate_up_proj", 0)
    assert any("picked by position" in line for line in lines)


@pytest.mark.long
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_query_heads_go_apart_from_keys_and_values(attention: str, tmp_path: Path) -> None:
    config = copy.deepcopy(zoo.build(LLAMA).config)
    config.num_attention_heads, config.num_key_value_heads = 8, 2
    config.head_dim, config._attn_implementation = 8, attention
    model, inputs = type(zoo.build(LLAMA))(config).eval(), zoo.example_inputs(LLAMA)
    plan = planc.compile(model, (), inputs, ratio=0.0, kinds={"query_heads": 0.5})
    smaller = planc.apply(plan, model)
    assert planc.verify(plan, model, smaller, (), inputs).graph_error <= 1e-5
    assert sizes(plan, "query_heads") == {(4, 2)}
    assert sizes(plan, "heads") == {(2, 2)}
    assert smaller.config.num_attention_heads == 4
    assert smaller.config.num_key_value_heads == 2
    held = [m.num_key_value_groups for m in smaller.modules() if hasattr(m, "num_key_value_groups")]
    assert set(held) == {2}
    smaller.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, attn_implementation=attention).eval()
    assert torch.equal(again(**inputs).logits, smaller(**inputs).logits)
