"""Construction of a model from its configuration: ``type(model)(model.config)``, without weights.

A configuration is an object of plain data held by the model as ``config``, with methods to write
and read it (``to_dict``, ``from_dict``). Building from one with changed fields shows if they
describe a pruned model.
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

from planc.ir.construction import NAME, Field, Kept, Tables
from planc.ir.plain import in_containers_of
from planc.modules.held import held_objects, integers, is_data, public
from planc.modules.tree import owned_tensors, plain

_WITHOUT_CONTENT = frozenset({torch.empty, torch.rand, torch.randn, torch.normal})
_COMPARED = (int, float, bool, str)  # classes of attributes compared between models


class _Weightless(TorchFunctionMode):
    """Place memory for weights on the meta device; tensors computed by a constructor stay real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _WITHOUT_CONTENT:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Construction:
    """The class of a model with a copy of its configuration.

    ``fields`` are the configuration's integers by dotted names, ``found`` the model's own tables,
    ``computed`` the buffers absent from state dicts.
    """

    make: Callable[[Any], nn.Module]
    configuration: Any
    fields: Mapping[Field, Any]
    found: Tables
    computed: Mapping[str, torch.Tensor]

    @cached_property
    def original(self) -> Tables | None:
        """The model's tables as far as the configuration determines them.

        None if the configuration yields other shapes.
        """
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
        """The tables of the model built with ``changes`` to its configuration; None if it fails."""
        model = self.model(changes)
        return None if model is None else tables(model)

    def model(self, changes: Mapping[Field, Any]) -> nn.Module | None:
        """The model built from the configuration with ``changes``, on the meta device; None if it
        fails.
        """
        try:
            configuration = copy.deepcopy(self.configuration)
            for field, value in changes.items():
                _set(configuration, field, value)
            read_back = type(configuration).from_dict(configuration.to_dict())
            with torch.random.fork_rng(devices=[]), _Weightless():
                return self.make(read_back)
        except Exception:  # any error means the class makes no such model
            return None

    @cached_property
    def _values(self) -> Mapping[str, torch.Tensor]:
        """The buffers absent from state dicts, with values if these can be known."""
        if not any(buffer.is_meta for buffer in self.computed.values()):
            return self.computed
        again = self.model({})
        made = {} if again is None else dict(again.named_buffers())
        return {
            name: made.get(name, old) if old.is_meta else old for name, old in self.computed.items()
        }

    def content_differs(self, changes: Mapping[Field, Any], kept: Kept) -> str:
        """Name the first computed buffer unequal to the ``kept`` part of the original's.

        Such buffers are absent from state dicts. Returns an empty string if all agree. For an
        original on the meta device, its class computes the buffers to compare with.
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
    """The construction of ``model``, or None without a writable configuration of plain data.

    Nothing is built yet.
    """
    configuration = vars(model).get(NAME)
    written = all(callable(getattr(configuration, name, None)) for name in ("to_dict", "from_dict"))
    if not written or not is_data(configuration):
        return None
    fields = {
        f"{name}.{field}".removeprefix(f"{NAME}."): numbers
        for path, name, held in held_objects(model)
        if path == "" and name.split(".")[0] == NAME
        for field, value in public(held)
        if (numbers := integers(value)) is not None
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
    """The shapes of a model's tensors, and the plain data in its modules' attributes."""
    shapes = {
        name: tuple(map(int, owned.tensor.shape))
        for owned in owned_tensors(model)
        for name in owned.names
    }
    attributes = {
        (path, name): held
        for path, module in model.named_modules()
        for name, value in public(module)
        if name != "training" and (held := plain(value, _COMPARED)) is not None
    }
    return Tables(shapes, attributes)


def _set(configuration: Any, field: Field, value: Any) -> None:
    *outer, name = field.split(".")
    holder = configuration
    for part in outer:
        holder = vars(holder)[part]
    vars(holder)[name] = in_containers_of(vars(holder)[name], value)
