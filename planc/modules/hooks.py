"""Tensors computed by modules from their parameters before each run, as in torch.nn.utils.prune: a
forward pre-hook sets ``weight`` to ``weight_orig * weight_mask``.

The hooks of weight_norm and spectral_norm work alike. ``weight`` itself is neither a parameter nor
a buffer but an attribute, possibly out of date; code copying or cutting a model computes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from planc.errors import PlancError


class Refresh:
    """Forward pre-hook computing the masked weights of a module's parts before each run.

    It is for modules reading the weights of their parts without calling them, such as
    ``nn.MultiheadAttention``.

    Attributes:
        paths: the parts, relative to the module.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        for part in map(module.get_submodule, self.paths):
            for hook in _hooks(part, BasePruningMethod):
                hook(part, inputs)


def refresh(model: nn.Module, path: str) -> None:
    """Register a :class:`Refresh` for the module at ``path`` on the module around it.

    Lists and sequences of modules read no weights and are passed over.
    """
    outer = path
    while outer:
        outer = outer.rpartition(".")[0]
        if not isinstance(model.get_submodule(outer), _CONTAINERS):
            break
    around = model.get_submodule(outer)
    if not path or isinstance(around, _CONTAINERS):
        return
    found = next(_hooks(around, Refresh), None)
    if found is None:
        found = Refresh()
        around.register_forward_pre_hook(found)
    inner = path.removeprefix(f"{outer}.")
    if inner not in found.paths:
        found.paths.append(inner)


def drop_refreshes(model: nn.Module) -> None:
    """Remove the hooks added by :func:`refresh`, in place."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Refresh):
                del module._forward_pre_hooks[key]


def _refreshed(model: nn.Module) -> set[str]:
    """The paths of all modules refreshed by another one."""
    return {
        _prefix(path) + inner
        for path, module in model.named_modules()
        for hook in _hooks(module, Refresh)
        for inner in hook.paths
    }


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """Attribute ``name`` of ``module`` at ``path``, computed by ``hook``.

    ``refreshed`` is True if another module has it computed before each run as well.
    """

    path: str
    module: nn.Module
    name: str
    hook: BasePruningMethod
    refreshed: bool = False

    @property
    def original(self) -> str:
        """Full name of the parameter without its mask."""
        return f"{_prefix(self.path)}{self.name}_orig"

    @property
    def mask(self) -> str:
        """Full name of the mask, a buffer."""
        return f"{_prefix(self.path)}{self.name}_mask"

    @property
    def full_name(self) -> str:
        """Full name of the computed tensor."""
        return _prefix(self.path) + self.name

    @property
    def current(self) -> torch.Tensor | None:
        """The present value of the attribute."""
        held = vars(self.module).get(self.name)
        return held if isinstance(held, torch.Tensor) else None

    def compute(self) -> torch.Tensor:
        """The value assigned by the hook.

        Raises:
            PlancError: the parameter or the mask is missing, or they do not fit each other.
        """
        own = {**self.module._parameters, **self.module._buffers}
        original, mask = own.get(f"{self.name}_orig"), own.get(f"{self.name}_mask")
        for name, found in ((self.original, original), (self.mask, mask)):
            if found is None:
                raise PlancError(
                    f"{self.path or 'the model'} has a hook of torch.nn.utils.prune for "
                    f"{self.name!r} and no tensor {name}: remove the hook, or prune it again"
                )
        assert original is not None
        assert mask is not None
        if original.shape != mask.shape:
            raise PlancError(
                f"{self.mask} has shape {tuple(mask.shape)}, {self.original} "
                f"{tuple(original.shape)}: prune the module again"
            )
        computed: torch.Tensor = self.hook.apply_mask(self.module)  # type: ignore[no-untyped-call]
        return computed

    @property
    def up_to_date(self) -> bool:
        """True if a run finds the value assigned by the hook."""
        if self.refreshed:
            return True
        held = self.current
        if held is None:
            return False
        with torch.no_grad():
            new = self.compute()
        alike = (held.shape, held.dtype, held.device) == (new.shape, new.dtype, new.device)
        return alike and (new.is_meta or torch.equal(held.detach(), new))


def masked_tensors(model: nn.Module) -> tuple[Masked, ...]:
    """All tensors of ``model`` computed by hooks of torch.nn.utils.prune."""
    found = [
        (path, module, hook)
        for path, module in model.named_modules()
        if module._forward_pre_hooks
        for hook in _hooks(module, BasePruningMethod)
    ]
    refreshed = _refreshed(model) if found else set()
    return tuple(
        Masked(path, module, hook._tensor_name, hook, path in refreshed)
        for path, module, hook in found
    )


def compute_again(model: nn.Module, copied: nn.Module) -> None:
    """Recompute the reparametrised attributes of a copy from its own parameters.

    Attributes out of date in ``model`` keep their value, unless the shape changed: the model may
    read them without the hook (``nn.MultiheadAttention`` reads ``out_proj.weight`` in this way).
    """
    for old, new in zip(masked_tensors(model), masked_tensors(copied), strict=False):
        held, copy = old.current, new.current
        if held is None or copy is None:
            continue
        with torch.set_grad_enabled(held.requires_grad):  # like prune, if it tracked gradients
            value = new.compute()
        if copy.shape != value.shape or old.up_to_date:
            vars(new.module)[new.name] = value
    for module in copied.modules():
        if module._forward_pre_hooks:
            for hook in _hooks(module, WeightNorm, SpectralNorm):
                _norm_again(module, hook)


def _norm_again(module: nn.Module, hook: WeightNorm | SpectralNorm) -> None:
    """Recompute the weight computed by a norm's hook; a meta tensor keeps its identity."""
    held = vars(module).get(hook.name)
    if type(held) is not torch.Tensor or held.is_meta:
        return
    with torch.set_grad_enabled(held.requires_grad):
        if isinstance(hook, WeightNorm):
            vars(module)[hook.name] = hook.compute_weight(module)
        else:
            vars(module)[hook.name] = hook.compute_weight(module, do_power_iteration=False)


def values_as_used(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of ``model`` by all their names, with masks applied."""
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    hooked = _gather(model, "", parameters, buffers)
    named = {**parameters, **buffers}
    if not hooked:
        return named
    with torch.no_grad():
        return named | {masked.original: masked.compute() for masked in masked_tensors(model)}


def _gather(
    module: nn.Module,
    prefix: str,
    parameters: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
) -> bool:
    """Collect the tensors of a module tree in one walk; return True if any module has pre-hooks."""
    for own, found in ((module._parameters, parameters), (module._buffers, buffers)):
        for name, tensor in own.items():
            if tensor is not None:
                found[prefix + name] = tensor
    hooked = bool(module._forward_pre_hooks)
    for name, child in module._modules.items():
        if child is not None:
            hooked |= _gather(child, f"{prefix}{name}.", parameters, buffers)
    return hooked


def _hooks(module: nn.Module, *kinds: type) -> Iterator[Any]:
    """The forward pre-hooks of a module, of these classes."""
    return (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, kinds))


def _prefix(path: str) -> str:
    return f"{path}." if path else ""
