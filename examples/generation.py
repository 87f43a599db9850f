"""A small random Llama: pruned, proven, generating with a cache, saved and loaded by its library.

python examples/generation.py
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import planc

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
model = LlamaForCausalLM(config).eval()
prompt = {"input_ids": torch.randint(3, 96, (1, 12)), "attention_mask": torch.ones(1, 12).long()}

# the default also halves the dimensions inside heads; when it loads a model, the library makes
# rotary tables from the width of a head, so a loadable model keeps that width and loses heads
plan = planc.compile(model, (), prompt, ratio=0.5, kinds={"heads": 0.5, "head_dim": 0.0})
for change in plan.attributes:
    if change.name.startswith("config."):
        print(change)
smaller = planc.apply(plan, model)
print(planc.verify(plan, model, smaller, (), prompt))
print(f"{plan.cost_before.params} parameters, {plan.cost_after.params} left")

tokens = smaller.generate(**prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
assert tokens.equal(
    smaller.generate(
        **prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, use_cache=False
    )
)
print(f"generated with a cache: {tokens[0, 12:].tolist()}")

with tempfile.TemporaryDirectory() as folder:
    smaller.save_pretrained(folder)
    loaded = LlamaForCausalLM.from_pretrained(folder).eval()
assert loaded(**prompt).logits.equal(smaller(**prompt).logits)
print("saved and loaded by the library: equal outputs")
