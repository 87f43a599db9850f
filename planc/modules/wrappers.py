"""Wrappers around models, and parts without support for plans, recognised by class name without an
import.

A wrapper adds a process group, devices, an average or a compiler to a model; plans are made for the
model inside. Names in its state dict begin with the wrapper's prefix.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from typing import Any

_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_INSIDE = {
    _COMPILED: "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
"""The attribute of each wrapper holding the model."""

_OWN = frozenset({"n_averaged"})
"""The state-dict entries of wrappers themselves."""

_PREFIX = re.compile(rf"(?:(?:{'|'.join(sorted(set(_INSIDE.values())))})\.)+")

_BEFORE = "plan with the model as it was before: {}"
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "bitsandbytes.nn")
REFUSED = {
    "torch.jit._script.ScriptModule": (
        "compiled by torch.jit",
        "pass the nn.Module that it was made from, and script or trace the pruned one",
    ),
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "sharded by FSDP, its parameters are parts of flat ones",
        _BEFORE.format("apply the plan to it, or to a full state dict, and shard the result"),
    ),
    **dict.fromkeys(
        _QUANTIZED,
        ("quantized", _BEFORE.format("prune the floating-point model, and quantize the result")),
    ),
}
"""Opaque classes and packages of classes, each with the reason and the remedy."""


def inside(model: Any) -> Any:
    """The model held by a wrapper; None if ``model`` is not a wrapper."""
    for name in _names(model):
        if name in _INSIDE:
            return getattr(model, _INSIDE[name])
    return None


def bare(model: Any) -> Any:
    """The model without the wrappers around it."""
    while (held := inside(model)) is not None:
        model = held
    return model


def refusal(module: Any) -> tuple[str, str] | None:
    """The reason for refusing a module of this class, and the remedy; None if it is supported."""
    for name in _names(module):
        for known, why in REFUSED.items():
            if f"{name}.".startswith(f"{known}."):
                return why
    return None


def rewrapped(model: Any, changed: Any) -> Any:
    """``changed``, made of the bare model, compiled by torch.compile if ``model`` was.

    Other wrappers are not restored: they are bound to processes, devices or averages of the
    original.
    """
    held = inside(model)
    if held is None:
        return changed
    changed = rewrapped(held, changed)
    if any(name == _COMPILED for name in _names(model)):
        return type(model)(changed, model.dynamo_ctx)
    return changed


def _names(module: Any) -> Iterator[str]:
    for kind in type(module).__mro__:
        yield f"{kind.__module__}.{kind.__qualname__}"


def unprefixed(name: str, known: Container[str]) -> str:
    """The known name left of ``name`` without prefixes of wrappers; empty if there is none."""
    while name not in known:
        outer, _, name = name.partition(".")
        if outer not in _INSIDE.values():
            return ""
    return name


def prefix_of(names: Iterable[str], known: Container[str]) -> str:
    """The wrappers' prefix of all names in a state dict, leading to ``known`` names once removed;
    empty if there is none.
    """
    names = [name for name in names if name not in _OWN]
    if not names or any(name in known for name in names):
        return ""
    found = _PREFIX.match(names[0])
    prefix = found.group() if found else ""
    while prefix and not any(name[len(prefix) :] in known for name in names):
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
    return prefix if all(name.startswith(prefix) for name in names) else ""
