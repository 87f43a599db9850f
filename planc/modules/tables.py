"""The tables of a live module or state dict in, in the form in which plans speak of them, out.

They agree with those of a traced graph, for the recorder collects them with the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from planc.errors import PlancError, StalePlan
from planc.modules.held import object_attributes
from planc.modules.tree import class_name, owned_tensors, structural_attributes
from planc.plan.plan import CLASS, ModuleSpec, TensorSpec


def tensors_of(model: nn.Module) -> tuple[TensorSpec, ...]:
    """The parameters and buffers of ``model`` in the order of ``Graph.tensors``.

    Raises:
        PlancError: a parameter has no shape yet (a lazy module that never ran).
    """
    specs = []
    for owned in owned_tensors(model):
        if is_lazy(owned.tensor):
            raise PlancError(
                f"{owned.names[0]} is not initialised: run the lazy module once before planning"
            )
        specs.append(TensorSpec(owned.names, _shape(owned.tensor), owned.kind))
    return tuple(specs)


def modules_of(model: nn.Module) -> tuple[ModuleSpec, ...]:
    """The modules of ``model`` in the order of ``Graph.modules``: their classes, and every number,
    flag and string that may be structural, sorted by name.
    """
    held = object_attributes(model)
    return tuple(
        ModuleSpec(path, tuple(sorted(_plain(module, held.get(path, {})).items())))
        for path, module in model.named_modules()
    )


def _plain(module: nn.Module, held: dict[str, Any]) -> dict[str, Any]:
    return {**structural_attributes(module), **held, CLASS: class_name(type(module))}


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict's tensors; what ``get_extra_state`` returned is none of them."""
    return {
        name: _shape(value)
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name.split(".")[-1] != "_extra_state"
    }


def not_the_result(difference: str) -> StalePlan:
    """The error of what cannot be restored, for it is not what the plan makes of its source."""
    return StalePlan(
        f"this is not what the plan produces: {difference}; "
        "restore what apply(..., keep_removed=True) returned, with the plan it was given"
    )


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape)
