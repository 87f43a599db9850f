"""Makes a model fit for comparison: random where its initialisation is constant, of sane scale
throughout, so that a wrong index changes the output instead of vanishing in it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_SMALL_VARIANCE = 0.05  # a channel that was silent while calibrating may speak later


def randomise(model: nn.Module, seed: int, *inputs: Any) -> None:
    """Gives every parameter and running statistic of ``model`` random values, in place.

    Weights are scaled in one run on ``inputs`` so that each layer's output has unit variance;
    batch norms get the statistics of what they see in it, disturbed by some 10 %.
    """
    generator = torch.Generator().manual_seed(seed)
    training = model.training
    model.eval()
    with torch.no_grad():
        for module in model.modules():
            _draw(module, generator)
        for module in model.modules():
            if _adds_to_a_stream(module):
                _quieten(module)
        _calibrate(model, inputs, generator)
    model.train(training)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Draws the parameters that the module itself holds."""

    def normal(tensor: torch.Tensor, scale: float) -> None:
        tensor.normal_(generator=generator).mul_(scale)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.uniform_(low, high, generator=generator)

    for name, parameter in module.named_parameters(recurse=False):
        if "bias" in name and parameter.ndim == 1:
            normal(parameter, 0.2)
        elif isinstance(module, _NORMS):
            uniform(parameter, 0.5, 1.5)
        elif isinstance(module, nn.Linear | _ConvNd | nn.MultiheadAttention):
            normal(parameter, 1 / math.sqrt(parameter[0].numel()))
        elif name == "logit_scale":  # Swin v2: cosine attention, the exponent of its temperature
            uniform(parameter, 1.0, 2.5)
        elif name == "layer_scale":  # ConvNeXt: 1e-6 would silence every block
            uniform(parameter, 0.3, 0.7)
        else:  # class tokens, position embeddings, tables of relative position biases
            normal(parameter, 0.5)


def _adds_to_a_stream(module: nn.Module) -> bool:
    """Whether a torchvision block adds its branch to its unchanged input."""
    for flag in ("use_res_connect", "apply_residual"):  # MobileNet and EfficientNet; MNASNet
        if hasattr(module, flag):
            return bool(getattr(module, flag))
    for projection in ("downsample", "proj"):  # ResNet; RegNet
        if type(module).__name__.endswith(("Block", "Bottleneck")) and hasattr(module, projection):
            return getattr(module, projection) is None
    return False


def _quieten(block: nn.Module) -> None:
    """Makes a residual branch small beside the stream it is added to.

    Without that, batch norms one after the other amplify a difference between two images, or a
    rounding error, a thousandfold over the depth of an EfficientNet.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    for parameter in norms[-1].parameters() if norms else ():
        parameter.mul_(0.3)


def _calibrate(model: nn.Module, inputs: tuple[Any, ...], generator: torch.Generator) -> None:
    """One run in which each layer is rescaled, and each batch norm set, as it is reached."""

    def unit_variance(layer: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        deviation = float(output.std())
        if not 1e-6 < deviation < math.inf:
            return output
        for parameter in layer.parameters(recurse=False):
            parameter.div_(deviation)
        return output / deviation

    def statistics(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        mean, variance = norm.running_mean, norm.running_var
        assert isinstance(mean, torch.Tensor)
        assert isinstance(variance, torch.Tensor)
        channels = inputs[0].transpose(0, 1).flatten(1)
        variance.copy_(channels.var(1).clamp(min=_SMALL_VARIANCE))
        noise = torch.empty_like(mean).normal_(generator=generator)
        mean.copy_(channels.mean(1) + 0.1 * noise * variance.sqrt())
        variance.mul_(torch.empty_like(variance).uniform_(0.8, 1.25, generator=generator))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear | _ConvNd):
            hooks.append(module.register_forward_hook(unit_variance))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(statistics))
    model(*inputs)
    for hook in hooks:
        hook.remove()
