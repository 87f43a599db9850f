"""Values that are at least zero, or above zero, for all inputs and all weights.

Zero divided by a value above zero is zero, in the masked model as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planc.ir.graph import Graph, Node, Ref, refs

_LEAST = {"float64": 1e-300, "float32": 1e-37, "bfloat16": 1e-37, "float16": 6e-5}
"""The smallest numbers of each type with full precision; smaller ones may be rounded to zero."""

_SAME = """
    alias clone contiguous detach expand expand_as flatten mean movedim permute repeat
    repeat_interleave reshape select slice sqrt squeeze t to transpose type_as unflatten unsqueeze
    view view_as _to_copy amax amin
"""
_NOT_NEGATIVE = """
    abs absolute cosh exp exp2 hardsigmoid linalg_norm linalg_vector_norm norm relu relu6 sigmoid
    softmax softplus square std var
"""
_ABOVE, _AT_LEAST, _ANY = 2, 1, 0


def positive(graph: Graph) -> set[int]:
    """The values above zero. Weights are not among them: a mask sets them to zero."""
    return {value for value, sign in _Signs(graph).of.items() if sign == _ABOVE}


def _least(dtype: str) -> float:
    return _LEAST.get(dtype, 1.0)


class _Signs:
    def __init__(self, graph: Graph) -> None:
        self.of: dict[int, int] = {}
        self._storages: dict[int, set[int]] = {}
        for node in graph.nodes:
            if node.op.startswith("aten."):
                self._visit(graph, node)
            if (written := node.written) is not None:
                storage = graph.values[written.id].storage
                last = {ref.id for ref in node.outputs if ref is not None}
                for value in self._storages.get(storage, set()) - last:
                    self.of.pop(value, None)

    def _visit(self, graph: Graph, node: Node) -> None:
        ref = node.outputs[0] if node.outputs else None
        if ref is None or node.out:
            return
        value = graph.values[ref.id]
        sign = self._sign(node, _least(value.dtype))
        if any(_least(graph.values[r.id].dtype) < _least(value.dtype) for r in refs(node.args)):
            sign = min(sign, _AT_LEAST)  # converted to a type of less range
        if sign:
            self.of[ref.id] = sign
            self._storages.setdefault(value.storage, set()).add(ref.id)

    def _sign(self, node: Node, least: float) -> int:
        name = node.op.split(".")[1]
        name = name.removesuffix("_") if node.in_place else name
        if name in _SAME.split():
            return self._given(node.args[0], least)
        if name in _NOT_NEGATIVE.split():
            return _AT_LEAST
        if name in _COMPUTED and not (set(dict(node.kwargs)) - {"min"}):
            rest = (*node.args[1:], *node.kwargs_values)
            return _COMPUTED[name](self._given(node.args[0], least), rest, self, least)
        if name in ("ones", "ones_like", "new_ones"):
            return _ABOVE
        return _ANY

    def _given(self, argument: Any, least: float) -> int:
        if isinstance(argument, Ref):
            return self.of.get(argument.id, _ANY)
        if isinstance(argument, int | float):
            return _ABOVE if argument >= least else _AT_LEAST if argument >= 0 else _ANY
        return _ANY


Rest = tuple[Any, ...]


def _add(first: int, rest: Rest, signs: _Signs, least: float) -> int:
    second = signs._given(rest[0], least)
    return max(first, second) if min(first, second) > _ANY else _ANY


def _mul(first: int, rest: Rest, signs: _Signs, least: float) -> int:
    """A product of two values above zero may still be rounded to zero."""
    factor = rest[0] if isinstance(rest[0], int | float) else None
    if first == _ABOVE and factor is not None and factor >= 1:
        return _ABOVE
    return min(first, signs._given(rest[0], least), _AT_LEAST)


def _pow(first: int, rest: Rest, signs: _Signs, least: float) -> int:
    exponent = rest[0]
    if exponent == 0.5:
        return first
    return _AT_LEAST if isinstance(exponent, int | float) and exponent % 2 == 0 else _ANY


def _clamp(first: int, rest: Rest, signs: _Signs, least: float) -> int:
    return max(first, signs._given(rest[0], least)) if len(rest) == 1 else _ANY


_COMPUTED: dict[str, Callable[[int, Rest, _Signs, float], int]] = {
    "add": _add,
    "mul": _mul,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _clamp,
}
