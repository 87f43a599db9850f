"""Uses of tensors: those that are contracted with the values of the inputs, as weights are."""

from __future__ import annotations

from planc.ir.graph import Graph
from planc.rules.families import elementwise
from planc.rules.registry import find


def fed_values(graph: Graph) -> frozenset[int]:
    """The values computed from the model's inputs."""
    fed = {ref.id for ref in graph.inputs}
    for node in graph.nodes:
        if not fed.isdisjoint(ref.id for ref in node.operands):
            fed.update(ref.id for ref in node.outputs if ref is not None)
    return frozenset(fed)


def contracted(graph: Graph) -> frozenset[int]:
    """The tensors that, by themselves or as part of a computed weight, meet the values of the
    inputs in an operator that is not elementwise.
    """
    fed = fed_values(graph)
    origin = {tensor.value: frozenset([tensor.value]) for tensor in graph.tensors}
    found: set[int] = set()
    for node in graph.nodes:
        sources = [origin[ref.id] for ref in node.operands if ref.id in origin]
        together = frozenset[int]().union(*sources)
        results = [ref.id for ref in node.outputs if ref is not None]
        if fed.isdisjoint(results):
            origin.update(dict.fromkeys(results, together))
        elif not _elementwise(node.op):
            found |= together
    return frozenset(found)


def _elementwise(op: str) -> bool:
    rule = find(op)
    return rule is not None and rule.__module__ == elementwise.__name__
