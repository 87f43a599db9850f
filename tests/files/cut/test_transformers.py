"""A plan on the files of a Hugging Face checkpoint: the library itself reads the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import planc
from planc.cli import run
from planc.errors import PlancError, PlancWarning

transformers = pytest.importorskip("transformers")


@pytest.mark.long
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
    with pytest.warns(PlancWarning, match=r"cannot load it: .*inv_freq .* head_dim"):
        plan = planc.compile(model, args, options, kinds={"head_dim": 0.5})
    model.save_pretrained(tmp_path / "in")
    with pytest.raises(PlancError, match=r"planc plan --loadable"):
        planc.apply_files(plan, tmp_path / "in", tmp_path / "out")
    assert not planc.apply_files(
        plan, tmp_path / "in", tmp_path / "out", stale_config=True
    ).described


def gpt2() -> torch.nn.Module:
    config = transformers.GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_inner=48,
        n_layer=2,
        n_head=4,
        n_positions=16,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.GPT2LMHeadModel(config)


def opt() -> torch.nn.Module:
    config = transformers.OPTConfig(
        vocab_size=64,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    return transformers.OPTForCausalLM(config)


def mixtral() -> torch.nn.Module:
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    return transformers.MixtralForCausalLM(config)


def bert() -> torch.nn.Module:
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    return transformers.BertModel(config)


_HEADS = {"heads": 0.5, "head_dim": 0.0}
FAMILIES = [
    (
        gpt2,
        "AutoModelForCausalLM",
        {"heads": 0.5, "head_dim": 0.0},
        ["n_embd", "n_head", "n_inner"],
    ),
    (opt, "AutoModelForCausalLM", {"heads": 0.5, "head_dim": 0.0}, ["ffn_dim", "hidden_size"]),
    (mixtral, "AutoModelForCausalLM", {"heads": 0.5, "head_dim": 0.0}, ["num_key_value_heads"]),
    (bert, "AutoModel", {"head_dim": 0.0}, ["intermediate_size"]),
]


@pytest.mark.long
@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize(("build", "auto", "kinds", "fields"), FAMILIES)
def test_the_result_is_a_checkpoint_of_its_family(
    tmp_path: Path, build: Any, auto: str, kinds: dict[str, float], fields: list[str], form: str
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    tokens, options = torch.arange(6)[None], {} if auto == "AutoModel" else {"use_cache": False}
    plan = planc.compile(model, (tokens,), options, ratio=0.5, kinds=kinds)
    source, out = tmp_path / "in", tmp_path / "out"
    # names as the module has them: by default, transformers saves some families under older ones
    model.save_pretrained(source, max_shard_size="30KB", save_original_format=False)
    if form == "bin":
        as_pickles(source)
    done = planc.apply_files(plan, source, out, trust_pickle=form == "bin")
    assert done.described
    assert done.shards > 1
    before, after = (json.loads((d / "config.json").read_text()) for d in (source, out))
    assert set(fields) <= {name for name in after if after[name] != before.get(name)}
    read = getattr(transformers, auto).from_pretrained(out).eval()
    assert type(read) is type(model)
    smaller = planc.apply(plan, model)
    assert torch.equal(read(tokens, **options)[0], smaller(tokens, **options)[0])
    loaded = planc.load(out, build().eval())
    assert torch.equal(loaded(tokens, **options)[0], smaller(tokens, **options)[0])


def as_pickles(directory: Path) -> None:
    """Makes the shards what they were before there was safetensors."""
    for path in directory.glob("*.safetensors"):
        torch.save(load_file(path), directory / as_bin(path.name))
        path.unlink()
    index = directory / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"] = {name: as_bin(file) for name, file in table["weight_map"].items()}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(table))
    index.unlink()


def as_bin(name: str) -> str:
    return f"pytorch_{name.removesuffix('.safetensors')}.bin"


@pytest.mark.long
def test_a_directory_is_a_model_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained("llama", max_shard_size="10KB")
    assert run(["plan", "llama", "--input", "1x4:int64", "-o", "a.planc"]) == 0
    written = []
    for command in (("llama",), ("llama", "--weights", "llama"), ("--weights", "llama")):
        assert run(["apply", "a.planc", *command, "-o", "out", "--overwrite"]) == 0
        written.append({path.name: path.read_bytes() for path in Path("out").iterdir()})
    assert written[0].keys() >= {"config.json", "model.safetensors.index.json"}
    assert written[0] == written[1] == written[2]
    assert run(["verify", "a.planc", "llama", "--result", "out"]) == 0
