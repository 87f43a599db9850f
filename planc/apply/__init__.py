"""Applying plans: a plan and a module or state dict in, a new one out; the argument is only read.

The executors, one a module: :mod:`planc.apply.tensors` for one tensor,
:mod:`planc.apply.module` and :mod:`planc.apply.state_dict` for all of them,
:mod:`planc.apply.attributes` for the numbers beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast, overload

import torch
from torch import fx, nn

from planc.apply.graph import apply_graph
from planc.apply.module import apply_module, mask_module, restore_module
from planc.apply.renewal import Removed
from planc.apply.state_dict import apply_state_dict, mask_state_dict, restore_state_dict
from planc.apply.validate import example_call, explained
from planc.apply.validate import validate as validate_module
from planc.errors import PlancError
from planc.modules.given import as_module
from planc.modules.wrappers import rewrapped
from planc.plan.arguments import a_flag, a_plan, instance, takes
from planc.plan.plan import Plan

__all__ = ["Removed", "apply", "mask", "restore"]

Target = TypeVar("Target", bound="nn.Module | Mapping[str, Any]")
Program = torch.export.ExportedProgram
removed_given = instance("removed values", Removed, advice="give what keep_removed=True gave")


@overload
def apply(
    plan: Plan,
    target: Program,
    *,
    keep_removed: Literal[False] = False,
    validate: bool = True,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> fx.GraphModule: ...


@overload
def apply(
    plan: Plan,
    target: Target,
    *,
    keep_removed: Literal[False] = False,
    validate: bool = True,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Target: ...


@overload
def apply(
    plan: Plan,
    target: Target,
    *,
    keep_removed: Literal[True],
    validate: bool = True,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> tuple[Target, Removed]: ...


@overload
def apply(
    plan: Plan,
    target: Target,
    *,
    keep_removed: bool,
    validate: bool = True,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
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
    """A new module or state dict without what the plan removes.

    A plan for ``target="module"`` gives a module of the same class, one for ``target="graph"`` the
    traced graph with rewritten constants, a trainable ``torch.fx.GraphModule``. An exported program
    stands for its ``.module()``: the result is a GraphModule, too, whose weights have the names of
    the program's ``state_dict``; export it again if a program is wanted. Device, dtype, memory
    format, tying, ``requires_grad``, hooks and training mode are those of the original, which is
    left as it was and shares no memory with the result. Gradients are not carried over.

    Args:
        plan: the plan, made for this model.
        target: an ``nn.Module``, an ``ExportedProgram``, or a mapping from names to tensors. Of a
            wrapper (DistributedDataParallel, DataParallel, AveragedModel) the model inside is
            pruned and returned, to be wrapped again; torch.compile's comes back compiled.
        keep_removed: return also the removed values, for :func:`restore`.
        validate: run the new module on fake tensors and compare every shape with the plan's
            prediction (a state dict cannot be run).
        args, kwargs: inputs for that; made from the plan's specification if not given, with the
            values of small integer tensors and in the model's precision.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the target already is the result of the plan.
        VerificationError: the result is not what the plan predicts; names the first difference.
        PlancError: the target is neither a module nor a mapping, or cannot be copied.
    """
    if isinstance(target, Mapping):
        return apply_state_dict(plan, target, keep_removed)
    model = _module(target)
    applied: Any
    if plan.target == "graph":
        call = example_call(plan, model, args, kwargs)
        with explained(args, kwargs):
            applied = apply_graph(plan, model, call, keep_removed, validate)
    else:
        applied = apply_module(plan, model, keep_removed)
        if validate:
            smaller = applied[0] if keep_removed else applied
            call = example_call(plan, model, args, kwargs)
            with explained(args, kwargs):
                validate_module(plan, model, smaller, call)
    if keep_removed:
        return rewrapped(target, applied[0]), applied[1]
    return rewrapped(target, applied)


@takes(plan=a_plan)
def mask(plan: Plan, target: Target) -> Target:
    """A new module or state dict of the original shapes, zero wherever the plan removes.

    This is the specification of :func:`apply`: where no group is mixing, both compute the same.

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
    """The original of ``smaller, removed = apply(plan, original, keep_removed=True)``, exactly.

    Raises:
        StalePlan: ``smaller`` or ``removed`` do not belong to the plan.
        PlancError: ``smaller`` is neither a module nor a mapping, or cannot be copied, or is a
            rewritten graph, of which only the state dict can be restored.
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
