"""Models as given by users, converted to the ``nn.Module`` to trace, prune and verify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from planc.errors import PlancError, TraceError
from planc.modules.tree import owned_tensors
from planc.modules.wrappers import bare, refusal
from planc.plan.arguments import shown


def as_module(model: Any, name: str = "model") -> nn.Module:
    """The module of ``model``: of an exported program its ``.module()``, sharing the program's
    weights; of a wrapper (DistributedDataParallel, torch.compile, ...) the wrapped module.

    Raises:
        TraceError: it is not a module, or a part of it is not accessible; names the part.
    """
    if isinstance(model, torch.export.ExportedProgram):
        return model.module()
    held = bare(model)
    if not isinstance(held, nn.Module):
        kind = type(held).__name__
        raise TraceError(f"{name}: expected an nn.Module, got {kind}: build the model first")
    for path, why, remedy in _unseen(held):
        raise TraceError(f"{name}: {path or 'the model itself'} {why}; {remedy}")
    return held


def module(name: str, value: Any) -> nn.Module:
    """The check of an argument for a model (:mod:`planc.plan.arguments`)."""
    return as_module(value, name)


def device_given(name: str, value: Any) -> torch.device:
    """The check of an argument for a device."""
    try:
        return torch.empty(0, device=torch.device(value)).device
    except (RuntimeError, TypeError, ValueError) as error:
        raise PlancError(
            f"{name} {shown(value)}: {str(error).splitlines()[0]}; give a name such as 'cpu'"
        ) from None


def example_inputs(
    program: torch.export.ExportedProgram,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs a program was exported with.

    Raises:
        TraceError: it carries none.
    """
    if program.example_inputs is None:
        raise TraceError("the exported program carries no example inputs: give args")
    args, kwargs = program.example_inputs
    return tuple(args), dict(kwargs)


_OFFLOADED = (
    "has its weights offloaded by accelerate, whose hooks bring them in for each call",
    "load the model without device_map, or remove_hook_from_submodules (accelerate.hooks)",
)


def _unseen(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """The inaccessible parts of a model: name, reason and remedy of each."""
    for path, module in model.named_modules():
        if (why := refusal(module)) is not None:
            yield path, f"({type(module).__name__}) is {why[0]}", why[1]
        if any(getattr(hook, "offload", False) for hook in _hooks(module)):
            yield path, *_OFFLOADED
    for owned in owned_tensors(model):
        if (told := _unread(owned.tensor)) is not None:
            yield owned.names[0], *told


def _hooks(module: nn.Module) -> Iterator[Any]:
    """The hooks of accelerate on a module."""
    hook = vars(module).get("_hf_hook")
    yield from getattr(hook, "hooks", (hook,))


def _unread(tensor: torch.Tensor) -> tuple[str, str] | None:
    """The reason for unreadable values of a parameter or buffer, and the remedy."""
    kind = type(tensor).__name__
    if is_lazy(tensor):
        return "is not initialised", "run the lazy module once before planning"
    if isinstance(tensor, FakeTensor):
        return "is a FakeTensor", "build the model outside of FakeTensorMode, on the meta device"
    if tensor.is_quantized:
        return "is quantized", "prune the floating-point model, and quantize the result"
    if tensor.is_nested:
        return "is a nested tensor", "make it a padded one"
    if type(tensor).__name__ == "DTensor":
        return "is sharded (a DTensor)", (
            "plan with the model before it was sharded, apply the plan to it or to a full state "
            "dict, and shard the result"
        )
    if is_traceable_wrapper_subclass(tensor):
        return f"is a {kind}, which holds its values in tensors of its own", (
            "prune the model of plain tensors, and quantize or convert the result"
        )
    return None
