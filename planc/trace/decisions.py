"""Decisions: where a model turns floating-point values into integers, truth values or numbers.

Two runs whose values differ by rounding may decide differently, and then compute on other boxes, or
run other operators. :class:`Replay` has one run decide as another did, and keeps the values that it
would have decided by: if those agree, and all results do, the two runs compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planc.errors import TraceError
from planc.ir.graph import Decision, Graph
from planc.modules.nesting import leaves

_STEPS = frozenset({"ceil", "floor", "round", "sign", "sgn", "trunc", "floor_divide", "heaviside"})
_SHAPES_ONLY = frozenset(
    {"empty_like", "full_like", "ones_like", "zeros_like", "new_empty", "new_full", "new_ones"}
    | {"new_zeros", "_pack_padded_sequence", "_pad_packed_sequence"}
)  # what they give in integers follows from shapes and from other integers

_OF_SHAPES = frozenset(
    {"dim.default", "numel.default", "size.int", "sym_size.int"}
    | {"_has_compatible_shallow_copy_type.default"}
)  # numbers and truth values that follow from shapes and types

Slice = Callable[[int, torch.Tensor], torch.Tensor]


def decides(func: Any, tensors: Sequence[torch.Tensor], result: Any) -> bool:
    """Whether an operator called on ``tensors`` took a decision."""
    if _name(func) in _SHAPES_ONLY or not any(tensor.is_floating_point() for tensor in tensors):
        return False
    if isinstance(result, bool | int | float):
        return func.__name__ not in _OF_SHAPES
    return bool(_decided(func, result))


def _decided(func: Any, result: Any) -> list[int]:
    """The positions of the results that do not follow the operands continuously."""
    flat = result if isinstance(result, tuple | list) else (result,)
    step = _name(func).removesuffix("_") in _STEPS
    return [
        i
        for i, item in enumerate(flat)
        if isinstance(item, torch.Tensor) and (step or not _floating(item))
    ]


def _floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _name(func: Any) -> str:
    return str(func.__name__).split(".")[0]


def decision(node: int, inputs: tuple[int, ...], func: Any, result: Any) -> Decision:
    """The decision that node ``node`` took when ``func`` gave ``result``."""
    at = _decided(func, result)
    flat = result if isinstance(result, tuple | list) else (result,)
    return Decision(node, inputs, {i: flat[i].clone() for i in at}, None if at else result)


class Replay(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    """Runs that decide as ``graph`` did.

    Args:
        result: the part of a value of the graph that a decision of this run is.
        operand: the part that is compared of a floating-point value that it decides by.
    """

    def __init__(self, graph: Graph, result: Slice, operand: Slice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.result, self.operand = graph, result, operand
        self.taken = 0
        self.operands: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        return self.decided(func, tensors, result) if decides(func, tensors, result) else result

    def decided(self, func: Any, tensors: Sequence[torch.Tensor], result: Any) -> Any:
        """``result`` of an operator with the other run's decision in its place.

        Raises:
            TraceError: the other run decided by another operator here.
        """
        if self.taken == len(self.graph.decisions):
            raise TraceError(f"{func} decides something where the other run had decided all")
        decision = self.graph.decisions[self.taken]
        node = self.graph.nodes[decision.node]
        if node.op != str(func):
            raise TraceError(f"{func} decides something where the other run has {node}")
        self.taken += 1
        operands = [tensor for tensor in tensors if tensor.is_floating_point()]
        for value, operand in zip(decision.inputs, operands, strict=True):
            self.operands.append(self.operand(value, operand.detach()).clone())
        if not decision.results:
            return decision.number
        flat = list(result) if isinstance(result, tuple | list) else [result]
        for at, recorded in decision.results.items():
            ref = node.outputs[at]
            assert ref is not None
            flat[at] = _replaced(func, flat[at], self.result(ref.id, recorded))
        if not isinstance(result, tuple | list):
            return flat[0]
        return type(result)(flat)

    def begin(self) -> None:
        """Starts again with the first decision."""
        self.taken = 0
        self.operands.clear()

    def finish(self) -> None:
        """Returns if all decisions were taken.

        Raises:
            TraceError: the other run has another one.
        """
        if self.taken != len(self.graph.decisions):
            node = self.graph.nodes[self.graph.decisions[self.taken].node]
            raise TraceError(f"the run ended before it decided what the other did in {node}")

    def where(self, operand: int) -> str:
        """The operator that decided by an operand, in words."""
        looked = [d.node for d in self.graph.decisions for _ in d.inputs]
        return str(self.graph.nodes[looked[operand]])


def _replaced(func: Any, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if not _name(func).endswith("_"):
        return wanted.clone()
    return found.copy_(wanted)
