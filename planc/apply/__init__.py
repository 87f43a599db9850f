"""Apply plans to models: :func:`apply`, its specification :func:`mask` and its inverse
:func:`restore`.

All three return new objects and only read their arguments. :mod:`planc.apply.tensors` cuts one
tensor, :mod:`planc.apply.module` and :mod:`planc.apply.state_dict` all tensors of a target, and
:mod:`planc.modules.attributes` sets structural attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast, overload

import torch
from torch import fx, nn

from planc.apply.graph import apply_graph
from planc.apply.module import apply_module, mask_module, named_tensors, restore_module
from planc.apply.renewal import Removed, collect_removed
from planc.apply.state_dict import (
    apply_state_dict,
    entries_of,
    mask_state_dict,
    restore_state_dict,
)
from planc.apply.validate import example_call, explained
from planc.apply.validate import validate as validate_module
from planc.errors import PlancError
from planc.ir.collection import paused_collection
from planc.modules.given import as_module
from planc.modules.weights import warn_if_other
from planc.modules.wrappers import rewrapped
from planc.plan.arguments import a_flag, a_plan, instance, takes
from planc.plan.plan import Plan

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Removed", "apply", "mask", "restore"]

Target = TypeVar("Target", bound="nn.Module | Mapping[str, Any]")
Program = torch.export.ExportedProgram
removed_given = instance("removed values", Removed, advice="give what keep_removed=True gave")


class _Checks(TypedDict, total=False):
    validate: bool
    args: Any
    kwargs: Mapping[str, Any] | None


@overload
def apply(
    plan: Plan, target: Program, *, keep_removed: Literal[False] = False, **checks: Unpack[_Checks]
) -> fx.GraphModule: ...


@overload
def apply(
    plan: Plan, target: Target, *, keep_removed: Literal[False] = False, **checks: Unpack[_Checks]
) -> Target: ...


@overload
def apply(
    plan: Plan, target: Target, *, keep_removed: Literal[True], **checks: Unpack[_Checks]
) -> tuple[Target, Removed]: ...


@overload
def apply(
    plan: Plan, target: Target, *, keep_removed: bool, **checks: Unpack[_Checks]
) -> Target | tuple[Target, Removed]: ...


@takes(plan=a_plan, keep_removed=a_flag, validate=a_flag)
def apply(
    plan: Plan,
    target: Any,
    *,
    keep_removed: bool = False,
    validate: bool = True,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Return a new module or state dict without the units removed by the plan.

    A plan with ``target="module"`` gives a module of the same class. One with ``target="graph"``
    gives the traced graph with rewritten constants, a trainable ``torch.fx.GraphModule``. An
    exported program is treated as its ``.module()``: the result is also a GraphModule, with the
    weight names of the program's ``state_dict``; export it again to obtain a program. Device,
    dtype, memory format, tying, ``requires_grad``, hooks and training mode are preserved. The
    original is unchanged and shares no memory with the result. Gradients are not copied.

    Args:
        plan: the plan, made for this model.
        target: an ``nn.Module``, an ``ExportedProgram``, or a mapping from names to tensors. The
            model inside a wrapper (DistributedDataParallel, DataParallel, AveragedModel) is pruned
            and returned without it; a model from torch.compile is compiled again.
        keep_removed: return also the removed values, for :func:`restore`.
        validate: run the new module on fake tensors and compare every shape with the plan's
            prediction. Ignored for a state dict, since it cannot be run.
        args, kwargs: inputs for validation. By default they are made from the plan's specification,
            with the recorded values of small integer tensors and in the model's precision.

    Returns:
        The new target, or ``(target, removed)`` with ``keep_removed=True``.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the target is already the result of the plan.
        VerificationError: the result differs from the plan's prediction; names the first
            difference.
        PlancError: the target is neither a module nor a mapping, or cannot be copied.

    Warns:
        PlancWarning: the weights differ from those that the plan was computed from, because they
            were trained since, or belong to another model of the same structure.
    """
    smaller, blocks = _smaller(plan, target, validate, args, kwargs)
    warn_if_other(plan, _weights(plan, target), "apply")
    return (smaller, replace(_removed(plan, target), blocks=blocks)) if keep_removed else smaller


@paused_collection()
def _smaller(
    plan: Plan, target: Any, validate: bool, args: Any, kwargs: Any
) -> tuple[Any, dict[str, nn.Module]]:
    if isinstance(target, Mapping):
        return apply_state_dict(plan, target), {}
    model = _module(target)
    if plan.target == "graph":
        call = example_call(plan, model, args, kwargs)
        with explained(args, kwargs):
            return rewrapped(target, apply_graph(plan, model, call, validate)), {}
    smaller, blocks = apply_module(plan, model)
    if validate:
        call = example_call(plan, model, args, kwargs)
        with explained(args, kwargs):
            validate_module(plan, model, smaller, call)
    return rewrapped(target, smaller), blocks


def _weights(plan: Plan, target: Any) -> nn.Module | Mapping[str, Any]:
    return entries_of(plan.tensors, target).own if isinstance(target, Mapping) else _module(target)


def _removed(plan: Plan, target: Any) -> Removed:
    if isinstance(target, Mapping):
        return collect_removed(plan, entries_of(plan.tensors, target).named)
    return collect_removed(plan, named_tensors(_module(target)))


@takes(plan=a_plan)
def mask(plan: Plan, target: Target) -> Target:
    """Return a new module or state dict of the original shapes, with zeros at all removed units.

    This is the specification of :func:`apply`: both compute the same outputs unless a pruned group
    is mixing.

    Args:
        plan: the plan, made for this model.
        target: a module, an exported program or a state dict, as for :func:`apply`.

    Raises:
        StalePlan, AlreadyApplied, PlancError: as for :func:`apply`.
    """
    masked: Any
    if isinstance(target, Mapping):
        masked = mask_state_dict(plan, target)
    else:
        masked = rewrapped(target, mask_module(plan, _module(target)))
    return cast("Target", masked)


@takes(plan=a_plan, removed=removed_given)
def restore(plan: Plan, smaller: Target, removed: Removed) -> Target:
    """Return the exact original of ``smaller, removed = apply(plan, original, keep_removed=True)``.

    Weights trained after pruning keep their new values.

    Args:
        plan: the plan given to :func:`apply`.
        smaller: the pruned module or state dict.
        removed: the removed values.

    Raises:
        StalePlan: ``smaller`` or ``removed`` do not belong to the plan.
        PlancError: ``smaller`` is neither a module nor a mapping, cannot be copied, or is a
            rewritten graph (restore its state dict instead).
    """
    restored: Any
    if isinstance(smaller, Mapping):
        restored = restore_state_dict(plan, smaller, removed)
        return cast("Target", restored)
    model = _module(smaller)
    if plan.target == "graph":
        raise PlancError(
            "a rewritten graph has no modules of the original to restore: restore its "
            "state_dict() and load that into the original's class"
        )
    return cast("Target", rewrapped(smaller, restore_module(plan, model, removed)))


def _module(target: Any) -> nn.Module:
    if not isinstance(target, nn.Module | Program):
        raise PlancError(
            f"target: a plan applies to an nn.Module or to a mapping from names to tensors, not to "
            f"{type(target).__name__}: pass the model, or its state_dict()"
        )
    return as_module(target, "target")
