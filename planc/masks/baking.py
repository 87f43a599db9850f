"""Baking: fold the masks of torch.nn.utils.prune into the weights; ``prune.remove`` for all
modules, as a pure function.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn

from planc.apply.module import copy_module
from planc.apply.renewal import trainable_results
from planc.apply.tensors import bits_of
from planc.errors import PlancError
from planc.modules.given import module
from planc.modules.hooks import Masked, drop_refreshes, masked_tensors
from planc.plan.arguments import takes

Model = TypeVar("Model", bound=nn.Module)
_Made = dict[int, tuple[nn.Parameter, list[nn.Parameter]]]  # by the id of the original, with it


@takes(model=module)
def bake(model: Model) -> Model:
    """Return a new model with every mask folded into its weights, without the hooks applying them.

    ``weight_orig`` and ``weight_mask`` become the parameter ``weight``, at the end of the module's
    parameters like after ``prune.remove``; hooks of other kinds stay. ``model`` is unchanged and
    shares no memory with the result. Tied parameters with different masks, or only some of them
    masked, become separate parameters, because one tensor cannot hold both. (``prune.remove`` masks
    all of them, which changes the model.)

    Args:
        model: a module, with or without masks.

    Raises:
        PlancError: a hook's parameter or mask is missing, or the model cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise PlancError(f"only an nn.Module can be baked, not {type(model).__name__}")
    baked = copy_module(model)
    with trainable_results():
        values = {masked.full_name: masked.compute() for masked in masked_tensors(baked)}
        made: _Made = {}
        for masked in masked_tensors(baked):
            _fold(masked, values[masked.full_name], made)
    drop_refreshes(baked)
    return cast("Model", baked)


def _fold(masked: Masked, value: torch.Tensor, made: _Made) -> None:
    """Replace the tensor computed by the hook of ``masked`` with the parameter ``value``."""
    module, name = masked.module, masked.name
    original = module._parameters.pop(f"{name}_orig")
    module._buffers.pop(f"{name}_mask")
    module._non_persistent_buffers_set.discard(f"{name}_mask")
    vars(module).pop(name, None)
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is masked.hook:
            del module._forward_pre_hooks[key]
    assert original is not None
    _, tied = made.setdefault(id(original), (original, []))
    parameter = next((p for p in tied if torch.equal(bits_of(p), bits_of(value))), None)
    if parameter is None:
        parameter = nn.Parameter(value.detach(), requires_grad=original.requires_grad)
        parameter.__dict__.update(vars(original))
        tied.append(parameter)
    module.register_parameter(name, parameter)
