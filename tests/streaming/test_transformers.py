"""A plan on the files of a Hugging Face checkpoint: the library itself reads the result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import planc

transformers = pytest.importorskip("transformers")


def test_from_pretrained_reads_what_was_cut_and_restored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    tokens, options = torch.arange(6)[None], {"use_cache": False}
    kinds = {"heads": 0.5, "head_dim": 0.0}  # frequencies of its own no configuration can say
    plan = planc.compile(model, (tokens,), options, ratio=0.5, kinds=kinds)
    model.save_pretrained(tmp_path / "in", max_shard_size="40KB")
    kept = tmp_path / "kept"
    done = planc.apply_files(plan, tmp_path / "in", tmp_path / "out", keep_removed=kept)
    assert done.shards > 1
    assert done.described
    expected = planc.apply(plan, model)(tokens, **options).logits
    read = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(read(tokens, **options).logits, expected)
    loaded = planc.load(tmp_path / "out", transformers.LlamaForCausalLM(config).eval())
    assert torch.equal(loaded(tokens, **options).logits, expected)
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    for path in (tmp_path / "in").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_a_configuration_that_cannot_describe_the_result_is_said(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    args, options = (torch.arange(6)[None],), {"use_cache": False}
    plan = planc.compile(model, args, options, ratio=0.5)  # pairs of rotary frequencies go
    model.save_pretrained(tmp_path / "in")
    assert not planc.apply_files(plan, tmp_path / "in", tmp_path / "out").described
