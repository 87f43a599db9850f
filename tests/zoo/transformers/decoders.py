"""Decoders: models that generate text, token after token."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers.entry import VOCABULARY, Entry

_COMMON = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA = {
    **_COMMON,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_SEVEN = {**_LLAMA, "num_key_value_heads": 4}  # as many key as query heads
_EXPERTS = {"moe_intermediate_size": 48, "num_experts_per_tok": 2}


def _entry(family: str, /, **options: Any) -> Entry:
    return Entry(f"{family}ForCausalLM", f"{family}Config", options)


DECODERS: dict[str, Entry] = {
    "llama": _entry("Llama", **_LLAMA),
    "mistral": _entry("Mistral", **_LLAMA, sliding_window=5),
    "ministral": _entry("Ministral", **_LLAMA, head_dim=16, sliding_window=5),
    "qwen2": _entry("Qwen2", **_LLAMA),
    "qwen3": _entry("Qwen3", **_LLAMA, head_dim=24),
    "gemma": _entry("Gemma", **_LLAMA, head_dim=24),
    "gemma2": _entry("Gemma2", **_LLAMA, head_dim=24, sliding_window=5),
    "gemma3_text": Entry(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**_LLAMA, "head_dim": 24, "sliding_window": 5},
    ),
    "phi": _entry("Phi", **_SEVEN),
    "phi3": _entry("Phi3", **_LLAMA),
    "gpt2": Entry(
        "GPT2LMHeadModel",
        "GPT2Config",
        {**_COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "gpt_neo": _entry(
        "GPTNeo",
        **_COMMON,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=5,
        max_position_embeddings=64,
    ),
    "gpt_neox": _entry("GPTNeoX", **_SEVEN),
    "gptj": _entry("GPTJ", **_COMMON, n_embd=64, n_layer=2, n_head=4, n_positions=64, rotary_dim=8),
    "falcon": _entry(
        "Falcon", **_COMMON, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    ),
    "falcon_gqa": _entry(
        "Falcon",
        **_COMMON,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        new_decoder_architecture=True,
    ),
    "bloom": _entry("Bloom", **_COMMON, hidden_size=64, n_layer=2, n_head=4),
    "mpt": _entry("Mpt", **_COMMON, d_model=64, n_heads=4, n_layers=2, max_seq_len=64),
    "opt": _entry(
        "OPT",
        **_COMMON,
        hidden_size=64,
        ffn_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
    ),
    "codegen": _entry(
        "CodeGen", **_COMMON, n_embd=64, n_layer=2, n_head=8, n_positions=64, n_ctx=64, rotary_dim=4
    ),
    "stablelm": _entry("StableLm", **_LLAMA),
    "olmo": _entry("Olmo", **_LLAMA),
    "olmo2": _entry("Olmo2", **_LLAMA),
    "olmo3": _entry("Olmo3", **_LLAMA, sliding_window=5),
    "starcoder2": _entry("Starcoder2", **_LLAMA),
    "cohere": _entry("Cohere", **_LLAMA),
    "cohere2": _entry("Cohere2", **_LLAMA, sliding_window=5),
    "granite": _entry("Granite", **_LLAMA),
    "glm": _entry("Glm", **_LLAMA, head_dim=16),
    "glm4": _entry("Glm4", **_LLAMA, head_dim=16),
    "gpt_bigcode": _entry("GPTBigCode", **_COMMON, n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "nemotron": _entry("Nemotron", **_LLAMA),
    "persimmon": _entry("Persimmon", **_SEVEN),
    "smollm3": _entry("SmolLM3", **_LLAMA),
    "exaone4": _entry("Exaone4", **_LLAMA, sliding_window=5),
    "helium": _entry("Helium", **_LLAMA, head_dim=16),
    "arcee": _entry("Arcee", **_LLAMA),
    "apertus": _entry("Apertus", **_LLAMA),
    "seed_oss": _entry("SeedOss", **_LLAMA, head_dim=16),
    "hunyuan_v1_dense": _entry("HunYuanDenseV1", **_LLAMA, head_dim=16),
    "ernie4_5": _entry("Ernie4_5", **_LLAMA, head_dim=16),
    "bitnet": _entry("BitNet", **_LLAMA),
    "diffllama": _entry("DiffLlama", **_LLAMA),
    "xglm": _entry(
        "XGLM",
        **_COMMON,
        d_model=64,
        ffn_dim=96,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=64,
    ),
    "biogpt": _entry("BioGpt", **_SEVEN),
    "ctrl": Entry(
        "CTRLLMHeadModel",
        "CTRLConfig",
        {**_COMMON, "n_embd": 64, "dff": 96, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "openai-gpt": Entry(
        "OpenAIGPTLMHeadModel",
        "OpenAIGPTConfig",
        {**_COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "mixtral": _entry("Mixtral", **_LLAMA, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": _entry(
        "Qwen2Moe", **_LLAMA, **_EXPERTS, num_experts=4, shared_expert_intermediate_size=48
    ),
    "qwen3_moe": _entry("Qwen3Moe", **_LLAMA, **_EXPERTS, num_experts=4, head_dim=16),
    "olmoe": _entry("Olmoe", **_LLAMA, num_experts=4, num_experts_per_tok=2),
    "granitemoe": _entry("GraniteMoe", **_LLAMA, num_local_experts=4, num_experts_per_tok=2),
    "phimoe": _entry("Phimoe", **_LLAMA, num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": _entry(
        "GptOss",
        **_LLAMA,
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=16,
        sliding_window=5,
    ),
    "deepseek_v3": _entry(
        "DeepseekV3",
        **_SEVEN,
        **_EXPERTS,
        n_routed_experts=4,
        n_shared_experts=1,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=12,
        v_head_dim=12,
    ),
    "deepseek_v2": _entry(
        "DeepseekV2",
        **_SEVEN,
        **_EXPERTS,
        n_routed_experts=4,
        n_shared_experts=1,
        first_k_dense_replace=1,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=12,
        v_head_dim=12,
    ),
    "mamba": _entry("Mamba", **_COMMON, hidden_size=32, state_size=8, num_hidden_layers=2),
    "mamba2": _entry(
        "Mamba2",
        **_COMMON,
        hidden_size=32,
        state_size=8,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=16,
        n_groups=2,
        chunk_size=8,
    ),
    "falcon_mamba": _entry(
        "FalconMamba", **_COMMON, hidden_size=32, state_size=8, num_hidden_layers=2
    ),
    "rwkv": _entry("Rwkv", **_COMMON, hidden_size=32, num_hidden_layers=2, context_length=32),
    "recurrent_gemma": _entry(
        "RecurrentGemma",
        **{**_LLAMA, "num_hidden_layers": 3},
        lru_width=64,
        attention_window_size=8,
    ),
}
