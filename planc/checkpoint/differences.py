"""What keeps a model from taking the tensors of a checkpoint: both in, every difference in words
out, so that all of them can be seen at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from planc.checkpoint.values import alike, decoded, is_known, modules_of
from planc.codec.checkpoint import Checkpoint, StoredModule, StoredTensor, plan_value
from planc.errors import MalformedFile
from planc.fingerprint import modules_after
from planc.plan import Plan
from planc.trace.structure import OwnedTensor, owned_tensors


def differences(checkpoint: Checkpoint, model: nn.Module, plan: Plan | None = None) -> list[str]:
    """Every difference between a checkpoint and a model of the pruned structure.

    Args:
        plan: the plan that the model was made with, where it is known.
    """
    found = [*tensor_differences(checkpoint, model), *attribute_differences(checkpoint, model)]
    if plan is not None and plan != checkpoint.plan:
        found.append(
            f"the plan: the checkpoint has {checkpoint.plan.fingerprint[:16]}..., made by "
            f"{_made_by(checkpoint.plan)}, another one than the one given, made by {_made_by(plan)}"
        )
    return found


def model_names(tensor: StoredTensor) -> tuple[str, ...]:
    """The names that a stored tensor has in the model."""
    if tensor.role == "buffer":
        return tuple(name.removeprefix("buffer/") for name in tensor.names)
    return tensor.names


def tensor_differences(checkpoint: Checkpoint, model: nn.Module) -> Iterator[str]:
    """Missing, unexpected, tied and other tensors."""
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
        # what a state dict calls by one name only is known by that one
        if stored and extra and not set(entry.names) & transient:
            yield f"{extra[0]}: tied to {stored[0]} in the model, not in the checkpoint"


def attribute_differences(checkpoint: Checkpoint, model: nn.Module) -> Iterator[str]:
    """Missing, unexpected and other modules and attributes."""
    modules = {module.path: module for module in modules_of(model)}
    for stored in checkpoint.modules or _modules_of(checkpoint.plan):
        where = stored.path or "the model itself"
        if stored.path not in modules:
            yield f"{where}: a {stored.type} in the checkpoint, not in the model"
            continue
        module = modules.pop(stored.path)
        own = dict(module.attributes)
        for name, value in stored.attributes:
            if name not in own:
                if is_known(value):
                    yield f"{where}.{name}: {_shown(value)} in the checkpoint, not in the model"
            elif not alike(value, own[name]):
                yield (
                    f"{where}.{name}: {_shown(value)} in the checkpoint, {_shown(own[name])} in "
                    f"the model ({module.type})"
                )
        if checkpoint.modules:  # a plan lists some attributes only
            known = {name for name, _ in stored.attributes}
            for name, value in own.items():
                if name not in known and is_known(value):
                    yield f"{where}.{name}: {_shown(value)} in the model, not in the checkpoint"
    for path, module in modules.items():
        yield f"{path}: a {module.type} in the model, not in the checkpoint"


def _modules_of(plan: Plan) -> Iterator[StoredModule]:
    """The modules of a checkpoint that was made without the model's class, as the plan has them."""
    for spec in modules_after(plan.modules, plan.attributes):
        attributes = tuple((name, plan_value(value)) for name, value in spec.attributes)
        yield StoredModule(spec.path, "module", attributes)


def transient_names(model: nn.Module) -> Iterator[str]:
    """The names of buffers that a state dict leaves out."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module._non_persistent_buffers_set:
            yield f"{path}.{name}" if path else name


def _what(entry: OwnedTensor) -> str:
    return f"a {entry.kind} of shape {tuple(entry.tensor.shape)}"


def _shown(value: object) -> str:
    try:
        text = repr(decoded(value))
    except MalformedFile:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _made_by(plan: Plan) -> str:
    return ", then ".join(f"{p.criterion}, {p.policy}, seed {p.seed}" for p in plan.provenance)
