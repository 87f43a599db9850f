"""Random weights for models of the library, whose initialisation leaves norms at one and biases at
zero, where a wrong index would not show.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def randomise(model: nn.Module, seed: int) -> None:
    """Gives every parameter and running statistic of ``model`` random values of sane scale, in
    place.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_floating_point():
                    _draw(module, name, parameter, generator)
            for name, buffer in module.named_buffers(recurse=False):
                if name == "running_mean":
                    buffer.normal_(generator=generator).mul_(0.2)
                elif name == "running_var":
                    buffer.uniform_(0.5, 1.5, generator=generator)


def _draw(
    module: nn.Module, name: str, parameter: torch.Tensor, generator: torch.Generator
) -> None:
    if parameter.ndim < 2 and "bias" in name:
        parameter.normal_(generator=generator).mul_(0.2)
    elif parameter.ndim < 2:  # norms, scales
        parameter.uniform_(0.5, 1.5, generator=generator)
    elif isinstance(module, nn.Embedding):
        parameter.normal_(generator=generator).mul_(0.5)
    else:  # matrices, kernels, stacks of matrices
        width = parameter[0].numel() if parameter.ndim != 3 else parameter.shape[-1]
        parameter.normal_(generator=generator).div_(math.sqrt(width))
