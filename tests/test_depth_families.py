"""Families of real models lose a quarter of their blocks: they compute as the original that skips
these, and reload from their configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.plan.depth import depth_of
from planc.plan.plan import Plan

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
IDS = torch.arange(6)[None]
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
TEXT: dict[str, Any] = {**SMALL, "vocab_size": 50}


def _hf(name: str, config: str, options: dict[str, Any], **inputs: Any) -> Made:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, name)(getattr(transformers, config)(**options)), (), inputs


def _vision(name: str, *args: Any, **options: Any) -> Made:
    made = getattr(pytest.importorskip("torchvision").models, name)(*args, **options)
    return made, (IMAGE,), {}


def _timm() -> Made:
    name = "vit_tiny_patch16_224"
    return pytest.importorskip("timm").create_model(name, depth=4, img_size=32), (IMAGE,), {}


GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 2, "vocab_size": 50, "bos_token_id": 1}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_heads": 4, "vocab_size": 50}
WHISPER = {
    **{f"{part}_layers": 4 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")},
    "d_model": 32,
    "vocab_size": 50,
    "max_source_positions": 10,
    "num_mel_bins": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
SOUND = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(3))
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
SWIN = {"embed_dim": 16, "depths": [2, 4], "num_heads": [2, 4], "image_size": 32, "patch_size": 2}

FAMILIES: dict[str, Callable[[], Made]] = {
    "llama": lambda: _hf("LlamaForCausalLM", "LlamaConfig", TEXT, input_ids=IDS),
    "qwen2": lambda: _hf(
        "Qwen2ForCausalLM", "Qwen2Config", {**TEXT, "num_key_value_heads": 2}, input_ids=IDS
    ),
    "gemma2": lambda: _hf(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**TEXT, "head_dim": 8, "num_key_value_heads": 2},
        input_ids=IDS,
    ),
    "gpt2": lambda: _hf("GPT2LMHeadModel", "GPT2Config", GPT2, input_ids=IDS),
    "bert": lambda: _hf("BertModel", "BertConfig", TEXT, input_ids=IDS),
    "t5": lambda: _hf(
        "T5ForConditionalGeneration", "T5Config", T5, input_ids=IDS, decoder_input_ids=IDS
    ),
    "whisper": lambda: _hf(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        WHISPER,
        input_features=SOUND,
        decoder_input_ids=IDS,
    ),
    "vit": lambda: _hf("ViTModel", "ViTConfig", PATCHES, pixel_values=IMAGE),
    "swin": lambda: _hf("SwinModel", "SwinConfig", {**SWIN, "window_size": 4}, pixel_values=IMAGE),
    "convnext": lambda: _hf(
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [3, 4], "num_stages": 2},
        pixel_values=IMAGE,
    ),
    "torchvision vit": lambda: _vision("VisionTransformer", 32, 8, 4, 4, 32, 48),
    "torchvision resnet": lambda: _vision("resnet50", width_per_group=4, num_classes=4),
    "timm vit": _timm,
}
DESCRIBED = {"llama", "qwen2", "gemma2", "gpt2", "bert", "t5", "whisper", "vit", "convnext"}


def _tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    items = found.values() if hasattr(found, "values") else found
    return [t for item in items for t in _tensors(item)] if hasattr(items, "__iter__") else []


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    options = {"use_cache": False} if {"input_ids", "decoder_input_ids"} & kwargs.keys() else {}
    try:
        with torch.no_grad():
            return _tensors(model(*args, **kwargs, **options))
    except TypeError:
        with torch.no_grad():
            return _tensors(model(*args, **kwargs))


def _skipping(
    plan: Plan, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[torch.Tensor]:
    """The outputs of the original with its removed blocks bypassed."""

    def bypass(_: nn.Module, given: tuple[Any, ...], named: Any, result: Any) -> Any:
        entering = given[0] if given else named["hidden_states"]
        return (entering, *result[1:]) if isinstance(result, tuple) else entering

    hooks = [
        model.get_submodule(path).register_forward_hook(bypass, with_kwargs=True)
        for path in depth_of(plan).removed_paths()
    ]
    found = _run(model, args, kwargs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_loses_a_quarter_of_its_blocks(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, args, kwargs = FAMILIES[name]()
    model.eval()
    plan = planc.compile(model, args, kwargs, kinds={"blocks": 0.25})
    counts = [(g.size, len(g.removed)) for g in plan.groups if g.kind == "blocks"]
    assert all(removed == size // 4 for size, removed in counts)
    smaller = planc.apply(plan, model)
    found, expected = _run(smaller, args, kwargs), _skipping(plan, model, args, kwargs)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    if name in DESCRIBED:
        given: Any = smaller
        given.save_pretrained(tmp_path)
        again = type(given).from_pretrained(tmp_path).eval()
        for one, other in zip(_run(again, args, kwargs), found, strict=True):
            assert torch.equal(one, other)


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_generation_with_a_cache_equals_generation_without(name: str) -> None:
    torch.manual_seed(0)
    model, args, kwargs = FAMILIES[name]()
    plan = planc.compile(model.eval(), args, kwargs, kinds={"blocks": 0.5})
    smaller: Any = planc.apply(plan, model)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_cache = smaller.generate(IDS, use_cache=True, **options)
    assert with_cache.tolist() == smaller.generate(IDS, use_cache=False, **options).tolist()


@pytest.mark.long
@pytest.mark.parametrize("name", ["t5", "swin", "torchvision resnet"])
def test_verify_proves_it(name: str) -> None:
    torch.manual_seed(0)
    model, args, kwargs = FAMILIES[name]()
    plan = planc.compile(model.eval(), args, kwargs, kinds={"blocks": 0.25})
    smaller = planc.apply(plan, model)
    report = planc.verify(plan, model, smaller, args, kwargs, other_sizes=False)
    assert "blocks removed" in report.checks[0]
