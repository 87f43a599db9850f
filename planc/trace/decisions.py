"""Decisions: floating-point values turned into integers, truth values or Python numbers.

Two runs with different rounding may decide differently, and then compute on other boxes or run
other operators. :class:`Replay` repeats the decisions of another run and keeps the operands of its
own. If these agree, and all results do, both runs compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planc.errors import TraceError
from planc.ir.graph import Decision, Graph
from planc.modules.nesting import as_sequence, leaves

_STEPS = frozenset({"ceil", "floor", "round", "sign", "sgn", "trunc", "floor_divide", "heaviside"})
_SHAPES_ONLY = frozenset(
    {"empty_like", "full_like", "ones_like", "zeros_like", "new_empty", "new_full", "new_ones"}
    | {"new_zeros", "_pack_padded_sequence", "_pad_packed_sequence"}
)  # their integer results follow from shapes and other integers

_OF_SHAPES = frozenset(
    {"dim.default", "numel.default", "size.int", "sym_size.int"}
    | {"_has_compatible_shallow_copy_type.default"}
)  # numbers and truth values determined by shapes and types

Slice = Callable[[int, torch.Tensor], torch.Tensor]


def decides(func: Any, tensors: Sequence[torch.Tensor], result: Any) -> bool:
    """True if an operator called on ``tensors`` made a decision."""
    if _name(func) in _SHAPES_ONLY or not any(tensor.is_floating_point() for tensor in tensors):
        return False
    if isinstance(result, bool | int | float):
        return func.__name__ not in _OF_SHAPES
    return bool(_decided(func, result))


def _decided(func: Any, result: Any) -> list[int]:
    """The positions of the results not continuous in the operands."""
    step = _name(func).removesuffix("_") in _STEPS
    return [
        i
        for i, item in enumerate(as_sequence(result))
        if isinstance(item, torch.Tensor) and (step or not _floating(item))
    ]


def _floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _name(func: Any) -> str:
    return str(func.__name__).split(".")[0]


def decision(node: int, inputs: tuple[int, ...], func: Any, result: Any) -> Decision:
    """The decision of node number ``node`` by the ``result`` of ``func``."""
    at, flat = _decided(func, result), as_sequence(result)
    return Decision(node, inputs, {i: flat[i].clone() for i in at}, None if at else result)


class Replay(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    """A mode repeating the decisions of ``graph`` in another run.

    Args:
        graph: the recorded run.
        result: maps a value's number and a recorded decision to the part taken in this run.
        operand: maps a value's number and a floating-point operand to the part to compare.
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
        """``result`` of an operator, with the recorded decision in its place.

        Raises:
            TraceError: the recorded run made its next decision in another operator, or none.
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
        flat = list(as_sequence(result))
        for at, recorded in decision.results.items():
            ref = node.outputs[at]
            assert ref is not None
            flat[at] = _replaced(func, flat[at], self.result(ref.id, recorded))
        if not isinstance(result, tuple | list):
            return flat[0]
        return type(result)(flat)

    def begin(self) -> None:
        """Start again with the first decision."""
        self.taken = 0
        self.operands.clear()

    def finish(self) -> None:
        """Check for decisions not taken.

        Raises:
            TraceError: the recorded run has further decisions.
        """
        if self.taken != len(self.graph.decisions):
            node = self.graph.nodes[self.graph.decisions[self.taken].node]
            raise TraceError(f"the run ended before it decided what the other did in {node}")

    def where(self, operand: int) -> str:
        """The operator deciding by an operand, in words."""
        looked = [d.node for d in self.graph.decisions for _ in d.inputs]
        return str(self.graph.nodes[looked[operand]])


def _replaced(func: Any, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if not _name(func).endswith("_"):
        return wanted.clone()
    return found.copy_(wanted)
