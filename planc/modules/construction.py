"""How a model is made from its configuration: ``type(model)(model.config)``, without weights.

A configuration is an object of plain data that the model holds as ``config`` and that can be
written down and read back (``to_dict``, ``from_dict``). What is built from one with other fields
shows whether they describe a model, pruned or not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from planc.ir.construction import NAME, Field, Kept, Tables, replaced
from planc.modules.held import held_objects, integers, is_data, public
from planc.modules.tree import owned_tensors, structural

_WITHOUT_CONTENT = frozenset({torch.empty, torch.rand, torch.randn, torch.normal})


class _Weightless(TorchFunctionMode):
    """Memory that waits for weights is not allocated; what a constructor computes is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _WITHOUT_CONTENT:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Construction:
    """The class of a model with a copy of its configuration; ``fields`` are the integers in that by
    dotted names, ``found`` the model's own tables, ``computed`` the buffers in no state dict.
    """

    make: Callable[[Any], nn.Module]
    configuration: Any
    fields: Mapping[Field, Any]
    found: Tables
    computed: Mapping[str, torch.Tensor]

    @cached_property
    def original(self) -> Tables | None:
        """The model's tables as far as the configuration makes them; None if it makes others."""
        made = self.built({})
        if made is None or made.shapes != self.found.shapes:
            return None
        alike = {
            key: value
            for key, value in self.found.attributes.items()
            if key in made.attributes and made.attributes[key] == value
        }
        return Tables(self.found.shapes, alike)

    def built(self, changes: Mapping[Field, Any]) -> Tables | None:
        """The tables of the model that the configuration with ``changes`` makes, None if none."""
        model = self.model(changes)
        return None if model is None else tables(model)

    def model(self, changes: Mapping[Field, Any]) -> nn.Module | None:
        """That model itself, its weights on the meta device."""
        try:
            configuration = copy.deepcopy(self.configuration)
            for field, value in changes.items():
                _set(configuration, field, value)
            read_back = type(configuration).from_dict(configuration.to_dict())
            with torch.random.fork_rng(devices=[]), _Weightless():
                return self.make(read_back)
        except Exception:  # whatever the class has against it: it makes no such model
            return None

    @cached_property
    def _values(self) -> Mapping[str, torch.Tensor]:
        """The buffers that are in no state dict, with values wherever they can be known."""
        if not any(buffer.is_meta for buffer in self.computed.values()):
            return self.computed
        again = self.model({})
        made = {} if again is None else dict(again.named_buffers())
        return {
            name: made.get(name, old) if old.is_meta else old for name, old in self.computed.items()
        }

    def content_differs(self, changes: Mapping[Field, Any], kept: Kept) -> str:
        """The first buffer that is computed anew, for no state dict has it, and comes out other
        than what is ``kept`` of the original's; empty if there is none. Where the original is on
        the meta device, its buffers are what its class computes.
        """
        model = self.model(changes)
        if model is None:
            return "no such model can be made"
        buffers = dict(model.named_buffers())
        for name, old in self._values.items():
            for dim, indices in enumerate(kept.get(name, ())):
                if indices is not None:
                    old = old.index_select(dim, torch.from_numpy(indices).to(old.device))
            new = buffers.get(name)
            if new is None or new.is_meta or old.is_meta:
                return f"{name} cannot be compared"
            if new.shape != old.shape or not new.to(old).equal(old):
                return f"{name} would have other values"
        return ""


def construction_of(model: nn.Module) -> Construction | None:
    """How ``model`` may be made, or None where it has no configuration of plain data that can be
    written down. Nothing is made yet.
    """
    configuration = vars(model).get(NAME)
    written = all(callable(getattr(configuration, name, None)) for name in ("to_dict", "from_dict"))
    if not written or not is_data(configuration):
        return None
    fields = {
        f"{name}.{field}".removeprefix(f"{NAME}."): plain
        for path, name, held in held_objects(model)
        if path == "" and name.split(".")[0] == NAME
        for field, value in public(held)
        if (plain := integers(value)) is not None
    }
    computed = {
        f"{path}.{name}" if path else name: buffer.detach()
        for path, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }
    copied = copy.deepcopy(configuration)
    return Construction(type(model), copied, fields, tables(model), computed)


def tables(model: nn.Module) -> Tables:
    """The shapes of a model's tensors, and what its modules hold of plain data."""
    shapes = {
        name: tuple(map(int, owned.tensor.shape))
        for owned in owned_tensors(model)
        for name in owned.names
    }
    attributes = {
        (path, name): plain
        for path, module in model.named_modules()
        for name, value in public(module)
        if name != "training" and (plain := _plain(value)) is not None
    }
    return Tables(shapes, attributes)


def _plain(value: Any) -> Any:
    """What is compared of an attribute: numbers, strings and sequences of them; None for others."""
    if type(value) is float:
        return value
    if type(value) in (tuple, list):
        items = tuple(_plain(item) for item in value)
        return None if any(item is None for item in items) else items
    return structural(value)


def _set(configuration: Any, field: Field, value: Any) -> None:
    *outer, name = field.split(".")
    holder = configuration
    for part in outer:
        holder = vars(holder)[part]
    vars(holder)[name] = replaced(vars(holder)[name], value)
