"""Plans of a resnet50, a ViT and a small Llama for the golden screens.

Run by ``python -m tests.scripts.screens``. The weights are random; widths, names and costs are
those of the architectures. Each is made twice: by a ratio, and by a global ranking within a budget.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import planc

SCREENS = Path(__file__).parent.parent / "golden" / "screens"
IMAGE = (1, 3, 224, 224)


def llama() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A Llama of six small layers with grouped queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(config), (torch.arange(16)[None],)


def vision(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model of torchvision and an image."""
    from torchvision import models

    return models.get_model(name), (torch.zeros(IMAGE),)


def main() -> None:
    """Write the plan files."""
    SCREENS.mkdir(exist_ok=True)
    for name in ("resnet50", "vit_b_16", "llama"):
        torch.manual_seed(0)
        model, args = llama() if name == "llama" else vision(name)
        model.eval()
        planc.save_plan(planc.compile(model, args, ratio=0.5), SCREENS / f"{name}.planc")
        within = planc.compile(model, args, criterion="l1", ranking="global", macs=0.5)
        planc.save_plan(within, SCREENS / f"{name}-global.planc")


if __name__ == "__main__":
    main()
