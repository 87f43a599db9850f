"""Tensor and module tables of a live module or state dict, in the form used by plans.

They agree with those of a traced graph, because the recorder collects them with the same functions.
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
    """Return the parameters and buffers of ``model`` in the order of ``Graph.tensors``.

    Raises:
        PlancError: a parameter has no shape yet (a lazy module before its first run).
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
    """Return the modules of ``model`` in the order of ``Graph.modules``.

    Each has its class and every potentially structural number, flag and string, sorted by name.
    """
    held = object_attributes(model)
    return tuple(
        ModuleSpec(path, tuple(sorted(_plain(module, held.get(path, {})).items())))
        for path, module in model.named_modules()
    )


def _plain(module: nn.Module, held: dict[str, Any]) -> dict[str, Any]:
    return {**structural_attributes(module), **held, CLASS: class_name(type(module))}


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a state dict's tensors, without the results of ``get_extra_state``."""
    return {
        name: _shape(value)
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and name.split(".")[-1] != "_extra_state"
    }


def not_the_result(difference: str) -> StalePlan:
    """Return the StalePlan error for a restore target not produced by this plan."""
    return StalePlan(
        f"this is not what the plan produces: {difference}; "
        "restore what apply(..., keep_removed=True) returned, with the plan it was given"
    )


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape)
