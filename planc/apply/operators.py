"""Operators of a rewritten graph with another form than the traced one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from planc.ir.graph import Graph, Node

_EQUAL_PARTS = (
    "aten.chunk.",
    "aten.unsafe_chunk.",
    "aten.split.Tensor",
    "aten.tensor_split.sections",
    "aten.hsplit.int",
    "aten.vsplit.int",
    "aten.dsplit.int",
)
_ATTENTION = "aten.scaled_dot_product_attention."
_ANY_LAYOUT = {  # contiguous() is not recorded for a contiguous tensor
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
}
_PAIRS = "aten.view_as_complex."  # reads neighbours in memory
Shapes = Sequence[tuple[int, ...]]


def call(
    graph: fx.Graph, op: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[fx.Node, bool]:
    """Call an operator; return its node, and True if its result is a list or tuple."""
    if op.startswith(_PAIRS):
        args = (graph.call_function(torch.ops.aten.contiguous.default, args[:1]), *args[1:])
    namespace, name, overload = _ANY_LAYOUT.get(op, op).split(".")
    function = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    returns = function._schema.returns
    several = len(returns) != 1 or "[]" in str(returns[0].type) or "List" in str(returns[0].type)
    return graph.call_function(function, args, dict(kwargs)), several


def pruned_parts(node: Node, graph: Graph, shapes: Shapes) -> tuple[int, tuple[int, ...]] | None:
    """Return the dimension and pruned sizes of the parts of a split into equal parts.

    None for other operators, and if the parts are not pruned.
    """
    parts = [ref.id for ref in node.outputs if ref is not None]
    traced = [graph.values[part].shape for part in parts]
    if not node.op.startswith(_EQUAL_PARTS) or traced == [shapes[part] for part in parts]:
        return None
    whole = graph.values[node.args[0].id].shape
    dim = next((d for d, (n, m) in enumerate(zip(whole, traced[0], strict=True)) if n != m), 0)
    return dim, tuple(shapes[part][dim] for part in parts)


def keep_scale(
    op: str, args: list[Any], kwargs: dict[str, Any], graph: Graph, shapes: Shapes
) -> None:
    """Write the default scale of attention explicitly, with its value before pruning."""
    if not op.startswith(_ATTENTION):
        return
    given = args[6] if len(args) > 6 else kwargs.get("scale")
    width = graph.values[args[0].id].shape[-1]
    if given is None and shapes[args[0].id][-1] != width:
        del args[6:7]
        kwargs["scale"] = 1 / math.sqrt(width)
