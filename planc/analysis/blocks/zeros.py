"""Zero weights against removal: does a block with zero parameters return what entered it?

The block's operators are walked once. Each value is *zero*, *the stream* (equal to the entering
value), or neither. Only operators with an obvious result are known; any other is a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planc.ir.graph import Graph, Node, Ref, refs

_SAME_NAMES = """
    alias clone contiguous detach lift_fresh to _to_copy type_as
"""
_SAME = frozenset(_SAME_NAMES.split())
_DROPS = ("dropout", "dropout_", "alpha_dropout", "feature_dropout")
_KEEP_ZERO_NAMES = """
    abs chunk div elu expand expand_as flatten flip gelu getitem hardswish hardtanh leaky_relu
    mean movedim mul narrow neg pad permute pow relu relu6 repeat reshape roll select silu slice
    split split_with_sizes sqrt squeeze sum t tan tanh transpose unbind unflatten unsqueeze view
    view_as mish softsign
"""
_KEEP_ZERO = frozenset(_KEEP_ZERO_NAMES.split())
_PRODUCTS_NAMES = """
    bilinear bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    convolution einsum linear matmul mm mv mul addmm baddbmm
"""
_PRODUCTS = frozenset(_PRODUCTS_NAMES.split())
_NORMS = ("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm")
_NOT_NEGATIVE = ("relu", "relu_", "relu6", "relu6_", "sigmoid", "softplus")
_KEEP_SIGN = (*_SAME, "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "view", "reshape", "mean")


def not_zeroed(graph: Graph, nodes: Sequence[Node], path: str, entry: int) -> str:
    """The reason why the block with zero parameters does not return the value ``entry``; empty if
    it does.

    Args:
        nodes: the operators of the block, the last one making its result.
        path: of the block.
        entry: the entering value.
    """
    walk = _Walk(graph, nodes, path, entry)
    for node in nodes:
        walk.visit(node)
    leaves = [ref.id for ref in nodes[-1].outputs if ref is not None]
    if leaves and leaves[0] in walk.stream:
        return ""
    return walk.reason or "its result with zero weights is not what enters it"


class _Walk:
    def __init__(self, graph: Graph, nodes: Sequence[Node], path: str, entry: int) -> None:
        self.graph, self.path, self.stream, self.reason = graph, path, {entry}, ""
        self.zero = {
            tensor.value
            for tensor in graph.tensors
            if tensor.kind == "parameter" and tensor.name.startswith(f"{path}.")
        }
        self.entry, self.made_by = (
            entry,
            {ref.id: node for node in graph.nodes for ref in node.outputs if ref is not None},
        )

    def visit(self, node: Node) -> None:
        made = [ref.id for ref in node.outputs if ref is not None]
        if self._is_zero(node):
            self.zero.update(made)
        elif len(made) == 1 and self._is_stream(node):
            self._overwrite(node, self.zero)
            self.stream.add(made[0])
        else:
            self._overwrite(node, self.zero)
            self._overwrite(node, self.stream)
        if made[:1] and made[0] not in self.zero | self.stream:
            self._note(node)

    def _overwrite(self, node: Node, values: set[int]) -> None:
        """Forget what is known of values whose memory the node writes to."""
        if (written := node.written) is not None:
            storage = self.graph.values[written.id].storage
            values -= {v for v in values if self.graph.values[v].storage == storage}

    def _note(self, node: Node) -> None:
        """Note the first operator that makes another value of a residual sum."""
        if not self.reason and self._meets_stream(node):
            inside = node.module[len(self.path) + 1 :] or "the block itself"
            self.reason = f"{_short(node)} of the stream in {inside}"

    def _meets_stream(self, node: Node) -> bool:
        """True where a residual sum has become another value of the stream's shape."""
        made = next(ref.id for ref in node.outputs if ref is not None)
        given = [ref.id for ref in node.operands if ref.id in self.stream - {self.entry}]
        values = self.graph.values
        return bool(given) and values[made].shape == values[given[0]].shape

    def _is_zero(self, node: Node) -> bool:
        if node.leaf or node.out:
            return False
        name, args = _short(node).rstrip("_"), node.args
        data = [ref.id for ref in node.operands]
        if name in _PRODUCTS:
            return self._product(name, node)
        if name in _NORMS:
            scale, shift = _norm_operands(name, node)
            return self._zero(scale) and (shift is None or self._zero(shift))
        if name in ("add", "sub", "cat", "stack"):
            return bool(data) and all(value in self.zero for value in data) and _no_numbers(args)
        if name == "scaled_dot_product_attention":
            return self._zero(args[2])
        if name in _SAME or name in _KEEP_ZERO or name in _DROPS:
            return bool(data) and data[0] in self.zero and self._fills_zero(name, node)
        return False

    def _fills_zero(self, name: str, node: Node) -> bool:
        if name == "pad":
            return _flag(node, 3, "value") in (None, 0)
        if name == "pow":
            return len(node.args) > 1 and isinstance(node.args[1], int | float) and node.args[1] > 0
        return True

    def _product(self, name: str, node: Node) -> bool:
        args = list(node.args)
        if name in ("addmm", "baddbmm"):
            return self._zero(args[0]) and (self._zero(args[1]) or self._zero(args[2]))
        if name == "einsum":
            return any(ref.id in self.zero for ref in refs((args[1:],)))
        zero = any(self._zero(arg) for arg in args[:2])
        has_bias = name in ("linear", "convolution") or name.startswith("conv")
        bias = dict(node.kwargs).get("bias", args[2] if has_bias and len(args) > 2 else None)
        return zero and (bias is None or self._zero(bias))

    def _is_stream(self, node: Node) -> bool:
        name, args = _short(node), node.args
        first = args[0].id if args and isinstance(args[0], Ref) else -1
        if name.rstrip("_") in _SAME:
            shape, dtype = self._kind(node.outputs[0]), self._kind(args[0])
            return first in self.stream and shape == dtype
        if name in _DROPS:
            return first in self.stream and _flag(node, 2, "train") is False
        if name in ("relu", "relu_"):
            return first in self.stream and self._not_negative(self.entry)
        if name.rstrip("_") in ("add", "sub") and len(args) > 1 and isinstance(args[1], Ref):
            plain = dict(node.kwargs).get("alpha", 1) == 1
            other = args[1].id
            left = first in self.stream and other in self.zero
            right = name.startswith("add") and plain and first in self.zero
            sum_of_same_shape = self._kind(node.outputs[0]) == self._kind(Ref(self.entry))
            return sum_of_same_shape and (left or (right and other in self.stream))
        return False

    def _not_negative(self, value: int) -> bool:
        node = self.made_by.get(value)
        while node is not None and _short(node) in _KEEP_SIGN and isinstance(node.args[0], Ref):
            node = self.made_by.get(node.args[0].id)
        return node is not None and _short(node) in _NOT_NEGATIVE

    def _zero(self, argument: Any) -> bool:
        return isinstance(argument, Ref) and argument.id in self.zero

    def _kind(self, ref: Any) -> tuple[tuple[int, ...], str]:
        value = self.graph.values[ref.id]
        return value.shape, value.dtype


def _short(node: Node) -> str:
    return node.op.split(".")[1] if node.op.startswith("aten.") else node.op


def _flag(node: Node, at: int, name: str) -> Any:
    return dict(node.kwargs).get(name, node.args[at] if len(node.args) > at else None)


def _norm_operands(name: str, node: Node) -> tuple[Any, Any]:
    """The scale and the shift of a normalisation."""
    at: dict[str, Callable[[], tuple[int, int]]] = {
        "layer_norm": lambda: (2, 3),
        "group_norm": lambda: (2, 3),
        "rms_norm": lambda: (2, -1),
        "batch_norm": lambda: (1, 2),
        "instance_norm": lambda: (1, 2),
    }
    scale, shift = at[name]()
    given = node.args
    bias = given[shift] if 0 <= shift < len(given) else dict(node.kwargs).get("bias")
    return (given[scale] if scale < len(given) else dict(node.kwargs).get("weight")), bias


def _no_numbers(args: tuple[Any, ...]) -> bool:
    """True if no operand of a sum is a number other than zero."""
    return all(isinstance(arg, Ref | tuple) or arg == 0 for arg in args[:2])
