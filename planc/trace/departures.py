"""Values leaving a run: as arrays, lists, capsules or memory, out of sight of the recorder, or kept
by the model and its arguments after the run.

Each one becomes a :class:`planc.ir.graph.Departure`. Data returning from outside torch, and writes
to shared memory there, are unknown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from planc.ir.graph import Departure, Node, Ref, Tensor, Value, refs
from planc.modules.search import PLAIN, Search
from planc.trace.leaf import NeedsValues
from planc.trace.lines import user_line
from planc.trace.results import handed_back
from planc.trace.values import RunValues

_TENSOR: Any = torch.Tensor
_COPIES = {_TENSOR.tolist: "tolist()"}
_SHARED = {
    _TENSOR.numpy: "numpy()",
    _TENSOR.__array__: "__array__()",
    _TENSOR.__dlpack__: "DLPack",
    _TENSOR.__cuda_array_interface__.fget: "__cuda_array_interface__",
    _TENSOR.untyped_storage: "its storage",
    _TENSOR.storage: "its storage",
    _TENSOR.data_ptr: "data_ptr()",
    _TENSOR.share_memory_: "share_memory_()",
}
LEAVING = _COPIES | _SHARED
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Departures:
    """The departures of one run; ``missing`` is True if a tensor without content left."""

    def __init__(self, values: RunValues) -> None:
        self.values = values
        self.missing = False
        self._found: dict[tuple[int, str], Departure] = {}
        self._held: list[tuple[int, list[int]]] = []  # values by the next node
        self._lent: list[tuple[torch.Tensor, torch.Tensor, str]] = []  # constants, copies, reasons

    @property
    def outside(self) -> bool:
        """True if any value left torch."""
        return any(departure.outside for departure in self._found.values())

    def leaves(self, tensor: torch.Tensor, func: Any, module: str) -> None:
        """Note the departure of a tensor from torch through ``func``.

        Raises:
            NeedsValues: the tensor has no content.
        """
        file, line = user_line()
        reason = f"leaves torch by {LEAVING[func]} in {module or 'the model'} ({file}:{line})"
        value = self.values.ref(tensor, None).id
        if self.values.is_known(tensor):
            if func in _SHARED:
                with _disable_current_modes():
                    self._lent.append((tensor, tensor.detach().clone(), reason))
            return
        if self.values.kind != "real":
            self.missing = True
            raise NeedsValues
        self._note(Departure(value, reason, outside=True, shared=func in _SHARED))

    def _note(self, departure: Departure) -> None:
        self._found.setdefault((departure.value, departure.reason), departure)
        self.values.open = self.values.open or departure.outside

    def decided(self, node: int) -> None:
        """Note a possible decision of the model's code before ``node`` runs."""
        if self.values.kind == "real":
            self._held.append((node, self.values.held()))

    def captured(self, shared: Iterable[int], module: str) -> None:
        """Note the values sharing memory with a captured tensor: they left unseen."""
        for other in shared:
            file, line = user_line()
            where = f"{module or 'the model'} ({file}:{line})"
            reason = f"leaves torch unseen: a tensor from outside has its memory in {where}"
            self._note(Departure(other, reason, outside=True, shared=True))

    def kept(
        self,
        model: nn.Module,
        arguments: Mapping[str, Any],
        nodes: Iterable[Node],
        inputs: Iterable[Ref],
        border: type,
    ) -> None:
        """Note values computed from the inputs and held by modules and arguments after the run.

        Objects of the class ``border`` are not searched.
        """
        values, given = self.values, {ref.id for ref in inputs}
        held = {
            values.ids[id(found)]: place
            for place, found in _held(model, arguments, lambda part: isinstance(part, border))
            if isinstance(found, torch.Tensor) and id(found) in values.ids
        }
        reached = _reached(values.described, nodes, given) if held else set()
        for value, place in held.items():
            if value not in given and values.described[value].storage in reached:
                self._note(Departure(value, f"kept after the run: {place}"))

    def finish(self, nodes: Sequence[Node], tensors: Iterable[Tensor]) -> tuple[Departure, ...]:
        """All departures; a constant counts only if it was written to outside torch."""
        if self._held:
            self._note_held(nodes, tensors)
        for tensor, before, reason in self._lent:
            if not torch.equal(tensor, before):
                self._note(Departure(self.values.ids[id(tensor)], reason, True, True))
                self.values.constants.clear()  # any may depend on it
        return tuple(self._found.values())

    def _note_held(self, nodes: Sequence[Node], tensors: Iterable[Tensor]) -> None:
        last = {
            ref.id: i
            for i, node in enumerate(nodes)
            for ref in refs((node.args, node.kwargs_values))
        }
        own = {tensor.value for tensor in tensors}
        unreached = [t.name for t in tensors if t.kind == "parameter" and t.value not in last]
        for following, held in self._held if unreached else ():
            for value in held:
                if value not in own and last.get(value, -1) < following:
                    reason = f"held at a decision that may go on to {unreached[0]}, read no more"
                    self._note(Departure(value, reason))


def _held(
    model: nn.Module, arguments: Mapping[str, Any], border: Callable[[Any], bool]
) -> Iterator[tuple[str, Any]]:
    search = Search(None, border, private=False)
    for path, module in model.named_modules():
        where = f"{path}." if path else ""
        for name, value in vars(module).items():
            if not (name.startswith("_") or isinstance(value, PLAIN)):
                yield from search.visit(where + name, value)
        for name in _HOOKS:
            for hook in vars(module)[name].values():
                yield from search.visit(f"a hook of {path or 'the model'}", hook)
    state = handed_back(model, arguments)
    search = Search(None, lambda found: id(found) in state or border(found))
    for name, value in arguments.items():
        yield from search.visit(f"argument {name}", value)


def bound(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    try:
        return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {**{str(i): arg for i, arg in enumerate(args)}, **kwargs}


def _reached(values: Sequence[Value], nodes: Iterable[Node], inputs: Iterable[int]) -> set[int]:
    """The storages of values computed from the inputs."""
    reached = {values[value].storage for value in inputs}
    for node in nodes:
        read = [values[ref.id].storage for ref in refs((node.args, node.kwargs_values))]
        if not reached.isdisjoint(read):
            reached.update(values[ref.id].storage for ref in node.outputs if ref is not None)
            if (written := node.written) is not None:
                reached.add(values[written.id].storage)
    return reached
