"""What is known of a value is so in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import planc
from planc.analysis import Analysis
from planc.analysis.constants.known import Known, operands
from planc.analysis.constants.walk import overload, walk_constants
from planc.ir.expressions import Scalar
from planc.ir.graph import Node, Ref, refs
from tests.programs import write
from tests.support.silenced import WAYS, chosen_units, silenced, sparsified


class Run:
    """The values of a graph's nodes in one real run, in order."""

    def __init__(self, analysis: Analysis, tensors: dict[str, Tensor], x: Tensor) -> None:
        graph = analysis.graph
        self.values: dict[int, Any] = {i: value.clone() for i, value in graph.captured.items()}
        self.values |= {t.value: tensors[t.name].detach().clone() for t in graph.tensors}
        self.values[graph.inputs[0].id] = x.clone()

    def argument(self, argument: Any) -> Any:
        """An argument as the operator takes it."""
        if isinstance(argument, Ref):
            return self.values[argument.id]
        if isinstance(argument, tuple):
            return tuple(self.argument(item) for item in argument)
        if isinstance(argument, Scalar):
            return float(argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return int(argument)
        return argument

    def step(self, node: Node) -> None:
        """Runs a node."""
        kwargs = {name: self.argument(arg) for name, arg in node.kwargs}
        result = overload(node.op)(*self.argument(node.args), **kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        for ref, value in zip(node.outputs, results, strict=False):
            if ref is not None:
                self.values[ref.id] = value


def check(known: Known, value: Tensor, where: str) -> None:
    value = torch.broadcast_to(value, known.value.shape)
    expected = known.value.to(value.dtype)
    # zero times a number is zero, but not zero times the NaN of a weight norm over zeros
    held = known.known & (value.isfinite() | ~expected.isfinite())
    torch.testing.assert_close(
        value[held], expected[held], rtol=1e-9, atol=1e-9, equal_nan=True, msg=where
    )
    if known.weighs and value.isfinite().all():
        torch.testing.assert_close(value.sum(-1), torch.ones_like(value.sum(-1)))


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from((*WAYS, "strewn")))
def test_what_is_known_of_an_operand_is_so_in_a_run(seed: int, zeros: int, way: str) -> None:
    program = write(seed, length=5)
    (x,) = program.inputs()
    x = x.double() if x.is_floating_point() else x
    model = program.model().double()
    analysis = planc.analyze(planc.trace(model, x))
    made_dead(model, analysis, way, zeros)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    run = Run(analysis, tensors, torch.randn_like(x) if x.is_floating_point() else x)
    for visit in walk_constants(analysis, tensors):
        node = visit.node
        known = operands((visit.args, tuple(visit.kwargs.values())))
        for ref, operand in zip(refs((node.args, node.kwargs_values)), known, strict=True):
            check(operand, run.values[ref.id], f"an operand of {node}")
        run.step(node)


def made_dead(model: nn.Module, analysis: Analysis, way: str, seed: int) -> None:
    """Silences half of the units, or strews zeros over the model."""
    if way == "strewn":
        sparsified(model, seed)
    else:
        rng = np.random.default_rng(seed)
        silenced(model, analysis, chosen_units(analysis, 0.5, rng, "graph"), way, rng)


class Written(nn.Module):
    """Half of a tensor of zeros, or of a layer's result, overwritten through a view."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.write(y)
        return self.b(y)


def last_operand(write: Any) -> Known:
    """The operand of the last layer, for a first layer with row 1 at zero."""
    model = Written(write)
    with torch.no_grad():
        model.a.weight[1], model.a.bias[1] = 0, 0
    analysis = planc.analyze(planc.trace(model, torch.ones(5, 3)))
    *_, last = walk_constants(analysis, dict(model.named_parameters()))
    return operands(last.args)[0]


@pytest.mark.parametrize(
    ("write", "zero"),
    [
        (lambda y: y.tanh_(), [1]),
        (lambda y: y.view(5, 2, 2).tanh_(), [1]),
        (lambda y: y.t().unsqueeze(0).tanh_(), [1]),
        (lambda y: y[:, 2:].zero_(), [1, 2, 3]),
        (lambda y: y.split(2, 1)[1].zero_(), [1, 2, 3]),
        (lambda y: y[:, :2].copy_(y[:, 1:3].clone()), [0]),
        (lambda y: y.view(5, 2, 2)[:, 0].cos_(), []),
        (lambda y: y[:, 1].add_(1), []),
    ],
)
def test_a_write_through_a_view_reaches_the_tensor(write: Any, zero: list[int]) -> None:
    known = last_operand(write)
    gone = known.known & (known.value == 0)
    assert gone.all(dim=0).nonzero()[:, 0].tolist() == zero
