"""Differences between a checkpoint and a model: every one in words, so all are seen at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from planc.apply.matching import counting
from planc.errors import MalformedFile
from planc.files.checkpoint.values import comparable, decoded, modules_of
from planc.files.formats.checkpoint import Checkpoint, StoredModule, StoredTensor, plan_value
from planc.modules.tree import OwnedTensor, owned_tensors, settings
from planc.plan.fingerprint import result_modules
from planc.plan.plan import CLASS, Plan

_OF_TRAINING = frozenset({"dropout", "momentum", "p"})  # without effect on inference
_UNKNOWN = "module"  # the type of a module known from a plan of an older version only


def differences(checkpoint: Checkpoint, model: nn.Module, plan: Plan | None = None) -> list[str]:
    """Return every difference between a checkpoint and a model of the pruned structure.

    Args:
        checkpoint: the record of the checkpoint.
        model: the model to take its tensors.
        plan: the plan of the model, if known.
    """
    found = [*tensor_differences(checkpoint, model), *attribute_differences(checkpoint, model)]
    if plan is not None and plan != checkpoint.plan:
        found.append(
            f"the plan: the checkpoint has {checkpoint.plan.fingerprint[:16]}..., made by "
            f"{_made_by(checkpoint.plan)}, another one than the one given, made by {_made_by(plan)}"
        )
    return found


def model_names(tensor: StoredTensor) -> tuple[str, ...]:
    """Return the names of a stored tensor in the model."""
    if tensor.role == "buffer":
        return tuple(name.removeprefix("buffer/") for name in tensor.names)
    return tensor.names


def tensor_differences(checkpoint: Checkpoint, model: nn.Module) -> Iterator[str]:
    """Yield missing and unexpected tensors, and differing shapes and ties."""
    owned = owned_tensors(model)
    owner = {name: entry for entry in owned for name in entry.names}
    listed: set[str] = set()
    for tensor in checkpoint.tensors:
        if tensor.role == "optimizer":
            continue
        names = model_names(tensor)
        listed.update(names)
        for name in names:
            if name not in owner:
                yield f"{name}: in the checkpoint with shape {tensor.shape}, not in the model"
            elif owner[name] is not owner.get(names[0], owner[name]):
                yield f"{name}: tied to {names[0]} in the checkpoint, not in the model"
            elif (shape := tuple(owner[name].tensor.shape)) != tensor.shape:
                yield f"{name}: shape {tensor.shape} in the checkpoint, {shape} in the model"
    transient = set(transient_names(model))
    digests = {n: t.digest for t in checkpoint.tensors for n in model_names(t)}
    for entry in owned:
        stored = [name for name in entry.names if name in listed]
        if not stored and not set(entry.names) <= transient:
            yield f"{entry.names[0]}: {_what(entry)} of the model, not in the checkpoint"
        if len({digests[name] for name in stored}) > 1:
            yield f"{', '.join(stored)}: tied in the model, with several values in the checkpoint"
        extra = [name for name in entry.names if name not in listed]
        # a tensor tied to a non-persistent buffer is stored by its other names only
        if stored and extra and not set(entry.names) & transient:
            yield f"{extra[0]}: tied to {stored[0]} in the model, not in the checkpoint"


def attribute_differences(checkpoint: Checkpoint, model: nn.Module) -> Iterator[str]:
    """Yield missing and unexpected modules, and differing types and attributes.

    Compared are the attributes listed by the plan, and the numbers used by the computations of
    torch.nn's own layers. Other attributes may be left over from earlier runs and may differ.
    """
    modules = {module.path: module for module in modules_of(model)}
    planned = {module.path: module for module in _modules_of(counting(checkpoint.plan, model))}
    numbers = {path: set(_numbers(module)) for path, module in model.named_modules()}
    for stored in checkpoint.modules or planned.values():
        where = stored.path or "the model itself"
        if stored.path not in modules:
            yield f"{where}: a {stored.type} in the checkpoint, not in the model"
            continue
        module = modules.pop(stored.path)
        if stored.type != _UNKNOWN and _name(stored.type) != _name(module.type):
            yield f"{where}: a {stored.type} in the checkpoint, a {module.type} in the model"
        saved, own = dict(stored.attributes), dict(module.attributes)
        listed = planned[stored.path].attributes if stored.path in planned else ()
        for name in sorted({*dict(listed), *numbers[stored.path] & saved.keys()}):
            if comparable(saved.get(name)) != comparable(own.get(name)):
                yield f"{where}.{name}: {_both(saved, own, name)} ({module.type})"
    for path, module in modules.items():
        yield f"{path}: a {module.type} in the model, not in the checkpoint"


def _numbers(module: nn.Module) -> Iterator[str]:
    """Yield the names of numbers used by a torch.nn layer beside sizes, such as ``eps``."""
    for name in settings(module):
        if type(vars(module).get(name)) is float and name not in _OF_TRAINING:
            yield name


def _modules_of(plan: Plan) -> Iterator[StoredModule]:
    """Yield the modules listed in the plan, for a checkpoint made without the model's class."""
    for spec in result_modules(plan):
        attributes = {name: plan_value(value) for name, value in spec.attributes}
        kind = attributes.pop(CLASS, _UNKNOWN)
        yield StoredModule(spec.path, kind, tuple(attributes.items()))


def transient_names(model: nn.Module) -> Iterator[str]:
    """Yield the names of buffers left out of a state dict."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module._non_persistent_buffers_set:
            yield f"{path}.{name}" if path else name


def _name(kind: str) -> str:
    """Return the name of a type without its module or enclosing function."""
    return kind.rpartition(".")[2]


def _what(entry: OwnedTensor) -> str:
    return f"a {entry.kind} of shape {tuple(entry.tensor.shape)}"


def _both(saved: Mapping[str, Any], own: Mapping[str, Any], name: str) -> str:
    """Describe both values of an attribute, or its absence."""
    here = f"{_shown(saved[name])} in the checkpoint" if name in saved else "not in the checkpoint"
    there = f"{_shown(own[name])} in the model" if name in own else "not in the model"
    return f"{here}, {there}"


def _shown(value: object) -> str:
    try:
        text = repr(decoded(value))
    except MalformedFile:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _made_by(plan: Plan) -> str:
    return ", then ".join(f"{p.criterion}, {p.policy}, seed {p.seed}" for p in plan.provenance)
