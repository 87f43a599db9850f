"""The two sides of torch.nn's layers: the dimensions of outputs and of inputs in their weights."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from planc.errors import PolicyError


class NoSide(PolicyError):
    """A name of no layer, or of a layer without the side."""


def side_of(model: nn.Module, name: str, out: bool) -> tuple[str, int]:
    """The tensor and the dimension of a layer's outputs or inputs; of a parameter, its last
    dimension of more than one index.

    Raises:
        NoSide: the model has no such layer or parameter, or the layer has no such dimension.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    if name in named:
        shape = named[name].shape
        return name, max((d for d, size in enumerate(shape) if size > 1), default=0)
    layer = dict(model.named_modules(remove_duplicate=False)).get(name)
    if layer is None:
        raise NoSide(f"the model has no layer {name!r}")
    tensor, dim = _side(layer, out)
    if getattr(layer, tensor.partition(".")[0], None) is None:
        raise NoSide(f"layer {name!r} ({type(layer).__name__}) has no {tensor}")
    return f"{name}.{tensor}" if name else tensor, dim


def _side(layer: nn.Module, out: bool) -> tuple[str, int]:
    if isinstance(layer, nn.MultiheadAttention):
        return "out_proj.weight", 0
    if isinstance(layer, nn.Embedding):
        return "weight", 1
    if isinstance(layer, nn.RNNBase):
        return ("weight_hh_l0", 1) if out else ("weight_ih_l0", 1)
    if isinstance(layer, nn.Linear):
        return "weight", int(not out)
    if isinstance(layer, _ConvNd):
        depthwise = layer.groups == layer.out_channels > 1
        return "weight", 0 if depthwise else int(out == layer.transposed)
    norm = getattr(layer, "weight", None)
    if norm is None:
        return "running_mean", 0
    return "weight", norm.dim() - 1 if isinstance(layer, nn.LayerNorm) else 0
