"""A walk over a graph with the known values of its tensors, independent of the inputs.

Node by node it yields the operands as :class:`planc.analysis.constants.known.Known`. Values are
forgotten after their last use.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planc.analysis import Analysis
from planc.analysis.constants.known import Known, constant, unknown
from planc.analysis.constants.transfer import transferred
from planc.analysis.constants.views import Views, base
from planc.ir.expressions import Scalar
from planc.ir.graph import Node, Ref, refs


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """Node number ``index`` with its arguments, tensors replaced by their known values."""

    index: int
    node: Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def walk_constants(analysis: Analysis, weights: Mapping[str, Tensor]) -> Iterator[Visit]:
    """Visit the nodes in order."""
    with torch.no_grad():
        yield from _Walk(analysis, weights).run()


def overload(op: str) -> Any:
    """The operator of that name, None if it does not exist."""
    namespace, name, variant = op.split(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    return getattr(packet, variant, None)


class _Walk:
    def __init__(self, analysis: Analysis, weights: Mapping[str, Tensor]) -> None:
        self.graph = graph = analysis.graph
        self.values: dict[int, Known] = {}
        self.like = torch.zeros(())
        for tensor in graph.tensors:
            found = next((weights[name] for name in tensor.names if name in weights), None)
            if found is not None:
                self.values[tensor.value] = constant(found.detach())
                self.like = found if found.is_floating_point() else self.like
        self.lent = {graph.values[d.value].storage for d in graph.departures if d.shared}
        for i, captured in graph.captured.items():
            # neither computed from sizes nor returned from outside torch: both may change
            if not (i in graph.numbers or i in graph.returned or self._is_lent(i)):
                self.values[i] = constant(captured.to(self.like.device))
        self.last: dict[int, int] = {}  # by storage
        self.alike: dict[int, list[int]] = {}
        for number, value in enumerate(graph.values):
            self.alike.setdefault(value.storage, []).append(number)
        for i, node in enumerate(graph.nodes):
            for ref in refs((node.args, node.kwargs_values)):
                self.last[graph.values[ref.id].storage] = i
            if (written := node.written) is not None:  # by each run: it is not constant
                self._forget(written.id)
        self.lasting = {*graph.captured, *(tensor.value for tensor in graph.tensors)}
        self.views = Views(graph)

    def run(self) -> Iterator[Visit]:
        for i, node in enumerate(self.graph.nodes):
            args = self._argument(node.args)
            kwargs = {name: self._argument(arg) for name, arg in node.kwargs}
            yield Visit(i, node, args, kwargs)
            self._results(node, args, kwargs)
            for ref in refs((node.args, node.kwargs_values)):
                if self.last[self.graph.values[ref.id].storage] == i:
                    self._forget(ref.id, self.lasting)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self._value(argument.id)
        if isinstance(argument, tuple):
            return tuple(self._argument(item) for item in argument)
        if isinstance(argument, Scalar):
            return float(argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return int(argument)
        return argument

    def _value(self, i: int) -> Known:
        if i not in self.values:
            value = self.graph.values[i]
            dtype = getattr(torch, value.dtype)
            return unknown(value.shape, self.like.new_zeros((), dtype=dtype))
        return self.values[i]

    def _results(self, node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        result = None
        if node.op.startswith("aten.") and any(ref is not None for ref in node.outputs):
            functional = node.op
            if node.in_place and not node.out:  # its out-of-place variant; aliases follow below
                space, name, variant = node.op.split(".")
                functional = f"{space}.{name.removesuffix('_')}.{variant}"
            operator = overload(functional) if not node.out else None
            if operator is not None:
                result = transferred(base(node), operator, args, kwargs)
                self.views.note(node, operator, args[1:], kwargs)
        if (written := node.written) is not None:
            self._overwrite(written.id, result)
        results = result if isinstance(result, tuple) else (result,) * len(node.outputs)
        for out, found in zip(node.outputs, results, strict=True):
            if out is not None and isinstance(found, Known) and not self._is_lent(out.id):
                shape = self.graph.values[out.id].shape
                assert found.value.shape == shape, f"{node}: {found.value.shape} is not {shape}"
                self.values[out.id] = found

    def _is_lent(self, value: int) -> bool:
        """True if code outside torch may have written to a value."""
        return self.graph.values[value].storage in self.lent

    def _overwrite(self, target: int, result: Any) -> None:
        """Write a result into a value and its views; forget other values in the same memory."""
        whole = self._value(self.views.whole(target))
        self._forget(target)
        if isinstance(result, Known) and not self._is_lent(target):
            shared = self.alike[self.graph.values[target].storage]
            self.values |= self.views.written(target, result, whole, shared)

    def _forget(self, value: int, kept: Container[int] = ()) -> None:
        """Forget all values sharing memory with a value."""
        for alias in self.alike[self.graph.values[value].storage]:
            if alias not in kept:
                self.values.pop(alias, None)
