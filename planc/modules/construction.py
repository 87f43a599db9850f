"""Construction of a model from its configuration: ``type(model)(model.config)``, without weights.

A configuration is an object of plain data held by the model as ``config``, with methods to write
and read it (``to_dict``, ``from_dict``). Building from one with changed fields shows if they
describe a pruned model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from planc.ir.construction import NAME, Field, Kept, Reads, Tables
from planc.ir.plain import in_containers_of
from planc.modules.held import held_objects, integers, public
from planc.modules.reads import objects, reading
from planc.modules.tree import owned_tensors, plain

_WITHOUT_CONTENT = frozenset({torch.empty, torch.rand, torch.randn, torch.normal})
_LONGEST = 200  # characters of an error in a reason
_COMPARED = (int, float, bool, str)  # classes of attributes compared between models


_Changes = tuple[tuple[Field, Any], ...]


class _Weightless(TorchFunctionMode):
    """Place memory for weights on the meta device; tensors computed by a constructor stay real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _WITHOUT_CONTENT:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Construction:
    """The class of a model, or of a model inside it, with a copy of its configuration.

    ``path`` is the model's place, ``holder`` the module and the attribute that hold its
    configuration. ``fields`` are the configuration's integers by dotted names, ``found`` the
    model's own tables, ``computed`` the buffers absent from state dicts.
    """

    make: Callable[[Any], nn.Module]
    configuration: Any
    path: str
    holder: tuple[str, str]
    fields: Mapping[Field, Any]
    found: Tables
    computed: Mapping[str, torch.Tensor]
    loads: bool = False
    _made: dict[_Changes, Tables | str] = field(default_factory=dict)
    _buffers: dict[_Changes, dict[str, torch.Tensor] | None] = field(
        default_factory=dict, init=False
    )

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
        made = self._tables(changes)
        return made if isinstance(made, Tables) else None

    def failure(self, changes: Mapping[Field, Any]) -> str:
        """The first line of the error of a class that makes no model; empty if it makes one."""
        made = self._tables(changes)
        return made if isinstance(made, str) else ""

    def _tables(self, changes: Mapping[Field, Any]) -> Tables | str:
        key = tuple(sorted(changes.items()))
        if key not in self._made:
            made = self._model(changes)
            found = made if isinstance(made, str) else tables(made, self.path)
            self._made[key] = found
        return self._made[key]

    def model(self, changes: Mapping[Field, Any]) -> nn.Module | None:
        """The model built from the configuration with ``changes``, on the meta device; None if it
        fails.
        """
        made = self._model(changes)
        return None if isinstance(made, str) else made

    def _model(self, changes: Mapping[Field, Any]) -> nn.Module | str:
        try:
            return self._build(self._changed(changes))
        except Exception as error:  # any error means the class makes no such model
            return (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST]

    def _changed(self, changes: Mapping[Field, Any]) -> Any:
        configuration = copy.deepcopy(self.configuration)
        for name, value in changes.items():
            _set(configuration, name, value)
        return type(configuration).from_dict(configuration.to_dict())

    def _build(self, configuration: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]), _Weightless():
            return self.make(configuration)

    @cached_property
    def reads(self) -> Reads:
        """The fields that the class reads to build the model, and those it has defaults for."""
        try:
            configuration = self._changed({})
            with reading(configuration) as found:
                self._build(configuration)
        except Exception:
            return Reads(frozenset(self.fields), ())
        return found.reads(self.fields)

    @cached_property
    def _values(self) -> Mapping[str, torch.Tensor]:
        """The buffers absent from state dicts, with values if these can be known."""
        if not any(buffer.is_meta for buffer in self.computed.values()):
            return self.computed
        again = self.model({})
        made = {} if again is None else _buffers(again, self.path)
        return {
            name: made.get(name, old) if old.is_meta else old for name, old in self.computed.items()
        }

    def content_differs(self, changes: Mapping[Field, Any], kept: Kept) -> str:
        """Name the first computed buffer unequal to the ``kept`` part of the original's.

        Such buffers are absent from state dicts. Returns an empty string if all agree. For an
        original on the meta device, its class computes the buffers to compare with.
        """
        buffers = self._computed(changes)
        if buffers is None:
            return "no such model can be made"
        for name, old in self._values.items():
            for dim, indices in enumerate(kept.get(name, ())):
                if indices is not None:
                    old = old.index_select(dim, torch.from_numpy(indices).to(old.device))
            new = buffers.get(name)
            if new is None or new.is_meta or old.is_meta:
                return f"{name} cannot be compared"
            if new.shape != old.shape or not new.to(old).equal(old):
                return f"{name} would have other values: the class computes it"
        return ""

    def _computed(self, changes: Mapping[Field, Any]) -> dict[str, torch.Tensor] | None:
        """The buffers of the model built with ``changes``, of those that are compared."""
        key = tuple(sorted(changes.items()))
        if key not in self._buffers:
            model = self.model(changes)
            made = None if model is None else _buffers(model, self.path)
            self._buffers[key] = made and {n: b for n, b in made.items() if n in self.computed}
        return self._buffers[key]

    def varying(self) -> Iterator[tuple[str, int]]:
        """The dimensions of computed buffers along which their values vary."""
        for name, values in self._values.items():
            for dim, size in enumerate(values.shape):
                first = values.narrow(dim, 0, min(size, 1))
                if values.is_meta or not values.equal(first.expand_as(values)):
                    yield name, dim


def constructions_of(model: nn.Module) -> tuple[Construction, ...]:
    """The constructions of ``model`` and of models inside it, outermost first.

    None without a writable configuration of plain data. Nothing is built yet.
    """
    holders = {id(held): (path, name) for path, name, held in held_objects(model)}
    found: list[Construction] = []
    all_tables: Tables | None = None
    for path, module in model.named_modules():
        configuration = vars(module).get(NAME)
        if id(configuration) not in holders or not _is_written(configuration):
            continue
        if all_tables is None:
            all_tables = tables(model)
        found.append(
            Construction(
                type(module),
                copy.deepcopy(configuration),
                path,
                holders[id(configuration)],
                dict(_numbers(configuration)),
                inside(all_tables, path),
                _computed(module, path),
                callable(getattr(module, "save_pretrained", None)),
            )
        )
    return tuple(found)


def construction_of(model: nn.Module) -> Construction | None:
    """The construction of ``model`` itself; None without a writable configuration of its own."""
    found = next(iter(constructions_of(model)), None)
    return found if found is not None and found.path == "" else None


def tables(model: nn.Module, path: str = "") -> Tables:
    """The shapes of a model's tensors, and the plain data in its modules' attributes.

    Names begin with ``path``, the place of the model in another.
    """
    start = f"{path}." if path else ""
    shapes = {
        f"{start}{name}": tuple(map(int, owned.tensor.shape))
        for owned in owned_tensors(model)
        for name in owned.names
    }
    attributes = {
        (".".join(filter(None, (path, inner))), name): held
        for inner, module in model.named_modules()
        for name, value in public(module)
        if name != "training" and (held := plain(value, _COMPARED)) is not None
    }
    return Tables(shapes, attributes)


def inside(found: Tables, path: str) -> Tables:
    """The part of the tables that belongs to the model at ``path``."""
    if not path:
        return found
    start = f"{path}."
    return Tables(
        {name: shape for name, shape in found.shapes.items() if name.startswith(start)},
        {key: held for key, held in found.attributes.items() if f"{key[0]}.".startswith(start)},
    )


def _is_written(configuration: Any) -> bool:
    """True for plain data with methods to write and read it."""
    return all(callable(getattr(configuration, name, None)) for name in ("to_dict", "from_dict"))


def _numbers(configuration: Any) -> Iterator[tuple[Field, Any]]:
    for name, held in objects(configuration):
        for own, value in public(held):
            if (numbers := integers(value)) is not None:
                yield f"{name}{own}", numbers


def _computed(model: nn.Module, path: str) -> dict[str, torch.Tensor]:
    return {
        ".".join(filter(None, (path, inner, name))): buffer.detach()
        for inner, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }


def _buffers(model: nn.Module, path: str) -> dict[str, torch.Tensor]:
    return {f"{path}.{name}" if path else name: held for name, held in model.named_buffers()}


def _set(configuration: Any, name: Field, value: Any) -> None:
    *outer, last = name.split(".")
    holder = configuration
    for part in outer:
        holder = vars(holder)[part]
    vars(holder)[last] = in_containers_of(vars(holder).get(last), value)
