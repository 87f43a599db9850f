"""The analysis as a whole: a pure function of the graph, with predictions that come true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.analysis import predicted_shape
from planc.apply import apply
from tests.support.proving import Net, prove, prunable, removal

IMAGES = torch.randn(2, 3, 4, 4)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
        nn.LayerNorm(4),
        nn.Linear(4, 2),
    ).eval()


def test_equal_graphs_give_equal_groups() -> None:
    first, second = (planc.analyze(planc.trace(net(), IMAGES)) for _ in range(2))
    assert first.groups == second.groups
    assert first.pins == second.pins
    assert first.equations("module").attributes == second.equations("module").attributes


def test_weights_do_not_matter() -> None:
    with torch.device("meta"):
        empty = net()
    assert (
        planc.analyze(planc.trace(empty, IMAGES)).groups
        == planc.analyze(planc.trace(net(), IMAGES)).groups
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_does_not_matter(batch: int) -> None:
    found = planc.analyze(planc.trace(net(), torch.randn(batch, 3, 4, 4)))
    assert found.groups == planc.analyze(planc.trace(net(), IMAGES)).groups


def test_predicted_shapes_are_those_of_a_run() -> None:
    model = net().double()
    found = planc.analyze(planc.trace(model, IMAGES.double()))
    plan = removal(found, tuple(1 for _ in found.groups), "module", 0)
    smaller = apply(plan, model, args=IMAGES.double())
    shapes = found.shapes(found.gone([group.removed for group in plan.groups]))
    again = planc.trace(smaller, IMAGES.double())
    assert [value.shape for value in again.values] == shapes
    assert plan.cost_after.params == sum(p.numel() for p in smaller.parameters())


def test_nothing_gone_changes_no_shape() -> None:
    found = planc.analyze(planc.trace(net(), IMAGES))
    gone = found.gone([() for _ in found.groups])
    assert not gone.any()
    assert found.shapes(gone) == [value.shape for value in found.graph.values]


def test_what_is_gone_is_what_the_units_hold() -> None:
    found = planc.analyze(planc.trace(net(), IMAGES))
    weight = found.walked.labels[found.graph.tensor("0.weight").value]
    at = next(g for g, group in enumerate(found.groups) if group.name == "0.weight:0")
    removed = [(0, 4) if g == at else () for g in range(len(found.groups))]
    gone = found.gone(removed)
    assert predicted_shape(weight, gone) == (4, 3, 1, 1)
    own = next(layer for layer in weight.targeting(0) if layer.fineness() == 6)
    assert np.flatnonzero(gone[own.along()]).tolist() == [0, 4]


def test_a_model_without_groups_has_an_analysis() -> None:
    found = prove(nn.Linear(3, 2), torch.randn(4, 3))
    assert found.groups == ()
    assert found.shapes(found.gone([])) == [value.shape for value in found.graph.values]
    assert not found.unknown


def test_what_the_module_cannot_the_graph_can() -> None:
    literal = Net(
        lambda m, x: m.b(m.a(x).view(2, 6, 16)), a=nn.Conv2d(3, 6, 1), b=nn.Conv1d(6, 2, 1)
    )
    found = prove(literal, IMAGES)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}


def test_mixing_for_the_module_alone() -> None:
    scaled = Net(
        lambda m, x: m.b((y := m.a(x)) / y.shape[1] ** 0.5),
        a=nn.Conv2d(3, 6, 1),
        b=nn.Conv2d(6, 2, 1),
    )
    found = prove(scaled, IMAGES)
    assert found.mixing(0, "module") == "its width is used as a number"
    assert found.mixing(0, "graph") == ""
