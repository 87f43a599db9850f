"""The output and input dimensions of weights, found from the operators using them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from planc.analysis.uses import contracted
from planc.ir.graph import Graph, Ref
from planc.rules.contractions import contraction


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
_APART = ("aten.bmm", "aten.baddbmm")  # a weight for each item of a batch: no matrix

NORMS = ("aten.batch_norm", "aten.native_batch_norm", "aten.cudnn_batch_norm")
"""Batch normalizations, with their scale as argument 1."""


def base_name(op: str) -> str:
    """An operator's name without its overload."""
    return ".".join(op.split(".")[:2])


def read(op: str) -> tuple[int, int, Role] | None:
    """The positions of the input and the weight among the arguments, and the weight's role, for an
    operator contracting the two; for an embedding that of the indices.
    """
    name, known = base_name(op), contraction(op)
    if name == "aten.embedding":
        return 1, 0, Role(1, None)
    if known is None or name in _APART:
        return None
    return known.x, known.weight, _TRANSPOSED if known.transposed else _FORWARD


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
        known = read(node.op)
        if known is not None and len(node.args) > max(known[:2]):
            weight = node.args[known[1]]
            if isinstance(weight, Ref) and weight.id in found:
                found[weight.id] = _with_channels(graph, node.args[known[0]], weight, known[2])
    return found


def _with_channels(graph: Graph, x: Any, weight: Ref, role: Role) -> Role:
    """The role with the number of channels read by the operator."""
    if role.into is None or not isinstance(x, Ref):
        return role
    shape, rank = graph.values[x.id].shape, len(graph.values[weight.id].shape)
    return replace(role, channels=shape[channel(len(shape), rank)])


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
