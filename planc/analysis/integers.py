"""Integer tensors that are plain numbers: masks, codes, quantised weights.

Their coordinates may be removed like those of floating-point tensors. Positions may not: an index
counts the coordinates of another tensor.
"""

from __future__ import annotations

import math

from planc.ir.graph import Graph, Node, refs

_LAYOUT = """
    alias broadcast_to clone contiguous detach expand expand_as flatten flip movedim permute reshape
    resize roll slice squeeze t transpose unflatten unsqueeze view view_as
"""
_ARITHMETIC = """
    __and__ __lshift__ __or__ __rshift__ __xor__ abs add bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor clamp copy div eq fill ge gt le logical_and
    logical_not logical_or logical_xor lt masked_fill mul ne neg rsub sub to type_as where zero
    _to_copy _fused_moving_avg_obs_fq_helper _weight_int8pack_mm fake_quantize_per_channel_affine
    fused_moving_avg_obs_fake_quant
"""
_PLAIN = frozenset((*_LAYOUT.split(), *_ARITHMETIC.split()))


def plain_numbers(graph: Graph) -> set[int]:
    """The values of integer and boolean tensors computed with coordinate by coordinate until they
    become floating-point numbers.
    """
    found = {t.value for t in graph.tensors if not t.floating and math.prod(t.shape) > 1}
    origin = {value: {value} for value in found}
    for node in graph.nodes if found else ():
        given = {ref.id for ref in refs((node.args, node.kwargs_values))}
        made_of: set[int] = set().union(*(origin.get(value, ()) for value in given))
        if not made_of:
            continue
        if not _is_plain(node):
            found -= made_of
        for ref in node.outputs:
            if ref is not None and not graph.values[ref.id].floating:
                origin[ref.id] = made_of
    for value in graph.read_outside:
        found -= origin.get(value, set())
    return found


def _is_plain(node: Node) -> bool:
    space, name = node.op.split(".")[:2]
    return space == "aten" and (name.removesuffix("_") if node.in_place else name) in _PLAIN
