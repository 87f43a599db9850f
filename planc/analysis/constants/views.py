"""Views of known values: content written through one view reaches all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from planc.analysis.constants.coordinates import MOVES
from planc.analysis.constants.known import Known, operands
from planc.ir.graph import Graph, Node, Ref

_SAME = torch.ops.aten.alias.default
_FREE = {torch.ops.aten.view.default: torch.ops.aten.reshape.default}
"""Operators that copy where the other one fails."""


def base(node: Node) -> str:
    """The name of a node's operator, the same for overloads and in-place variants."""
    name = node.op.split(".")[1]
    return name.removesuffix("_") if node.in_place else name


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A view of the value ``source``: the operator with its further arguments, and the position
    among its results, if it has several.
    """

    source: int
    operator: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    at: int | None = None

    def of(self, source: Known) -> Known:
        """The view of other content, in its memory where that is possible."""
        given = self.kwargs or {}
        parts = (self.operator(t, *self.args, **given) for t in (source.value, source.known))
        return Known(*(part if self.at is None else part[self.at] for part in parts))


class Views:
    """The views among the values of a graph, noted node by node."""

    def __init__(self, graph: Graph) -> None:
        self._values = graph.values
        self._views: dict[int, _View] = {}

    def note(
        self, node: Node, operator: Any, rest: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Note the results of a node that share memory with its first argument."""
        first = node.written or next(iter(node.args), None)
        if not isinstance(first, Ref):
            return
        source = first.id
        moves = base(node) in MOVES and not operands((rest, tuple(kwargs.values())))
        for i, out in enumerate(node.outputs):
            if out is None or self._values[out.id].storage != self._values[source].storage:
                continue
            if node.in_place:
                self._views[out.id] = _View(source, _SAME)
            elif moves:
                at = i if len(node.outputs) > 1 else None
                self._views[out.id] = _View(source, _FREE.get(operator, operator), rest, kwargs, at)

    def whole(self, value: int) -> int:
        """The value at the end of a chain of views."""
        while value in self._views:
            value = self._views[value].source
        return value

    def written(
        self, target: int, content: Known, before: Known, shared: Sequence[int]
    ) -> dict[int, Known]:
        """The values ``shared``, all of the same memory, after a write of ``content`` to one of
        them. ``before`` is the old content of all the memory; values other than views are absent.
        """
        whole = self.whole(target)
        seen = {whole: _copied(before)}
        for value in shared:
            view = self._views.get(value)
            if view is not None and view.source in seen:
                part = view.of(seen[view.source])
                if _share(part, seen[whole]):
                    seen[value] = part
        if target not in seen:
            return {target: content}
        seen[target].value.copy_(content.value)
        seen[target].known.copy_(content.known)
        return {value: _copied(part) for value, part in seen.items()}


def _copied(x: Known) -> Known:
    return Known(x.value.contiguous().clone(), x.known.contiguous().clone())


def _share(x: Known, y: Known) -> bool:
    pairs = ((x.value, y.value), (x.known, y.known))
    return all(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b in pairs)
