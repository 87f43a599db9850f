"""The output and input dimensions of weights, found from the operators using them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planc.analysis.uses import contracted
from planc.ir.graph import Graph, Node, Ref


@dataclass(frozen=True, slots=True)
class Role:
    """The dimension of a weight for its outputs, and that of its inputs (None if there is none).

    ``channels`` is the number of inputs read by a known operator: more than the size of that
    dimension if the inputs are read in groups.
    """

    out: int
    into: int | None
    channels: int | None = None


_FORWARD, _TRANSPOSED = Role(0, 1), Role(1, 0)
_OPERATORS: Mapping[str, tuple[int, Role]] = {
    "aten.linear": (1, _FORWARD),
    "aten.conv1d": (1, _FORWARD),
    "aten.conv2d": (1, _FORWARD),
    "aten.conv3d": (1, _FORWARD),
    "aten.conv_transpose1d": (1, _TRANSPOSED),
    "aten.conv_transpose2d": (1, _TRANSPOSED),
    "aten.conv_transpose3d": (1, _TRANSPOSED),
    "aten.matmul": (1, _TRANSPOSED),
    "aten.mm": (1, _TRANSPOSED),
    "aten.addmm": (2, _TRANSPOSED),
    "aten.embedding": (0, Role(1, None)),
}
"""The position of the weight argument, and its role."""

NORMS = ("aten.batch_norm", "aten.native_batch_norm", "aten.cudnn_batch_norm")
"""Batch normalizations, with their scale as argument 1."""


def base_name(op: str) -> str:
    """An operator's name without its overload."""
    return ".".join(op.split(".")[:2])


def contraction(op: str) -> tuple[int, Role] | None:
    """The position of the weight argument and its role, for an operator contracting its input with
    a weight.
    """
    return _OPERATORS.get(base_name(op))


def roles(graph: Graph) -> dict[int, Role]:
    """The roles of the graph's matrices, by their value.

    A matrix without a known operator counts as ``[out, in, ...]``. A parameter that only meets
    activations element by element (a layer scale, a position) is no matrix.
    """
    mixed = contracted(graph)
    found = {
        tensor.value: _FORWARD
        for tensor in graph.tensors
        if tensor.kind == "parameter" and len(tensor.shape) > 1 and tensor.value in mixed
    }
    for node in reversed(graph.nodes):  # the first use decides
        known = contraction(node.op)
        if known is not None and len(node.args) > known[0]:
            argument = node.args[known[0]]
            if isinstance(argument, Ref) and argument.id in found:
                found[argument.id] = _read(graph, node, *known)
    return found


def _read(graph: Graph, node: Node, at: int, role: Role) -> Role:
    """The role with the number of channels read by the operator."""
    x, weight = node.args[at - 1], node.args[at]
    if role.into is None or not isinstance(x, Ref):
        return role
    read, rank = graph.values[x.id].shape, len(graph.values[weight.id].shape)
    return replace(role, channels=read[channel(len(read), rank)])


def channel(rank: int, weight_rank: int) -> int:
    """The dimension of an operator's input read by a weight of ``weight_rank`` dimensions: the last
    one before those of the kernel.
    """
    return rank - weight_rank + 1


def scales(graph: Graph) -> frozenset[int]:
    """The values of the parameters scaling the channels of a batch normalization."""
    parameters = {tensor.value for tensor in graph.tensors if tensor.kind == "parameter"}
    arguments = [node.args[1] for node in graph.nodes if base_name(node.op) in NORMS]
    return frozenset(
        argument.id
        for argument in arguments
        if isinstance(argument, Ref) and argument.id in parameters
    )
