"""The registry: names of operators, and which rule they find."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torchvision  # noqa: F401  brings its operators
from torch import nn

import planc
from planc.rules import find, registry, rule
from planc.rules.common import pin_dims
from planc.rules.families.elementwise import add, keeps_zero
from planc.rules.labels import Labelled
from planc.rules.labels.facts import Facts
from tests.support.proving import Net, prove, together

IMAGES = torch.randn(2, 3, 4, 4)


OWN = sorted(name for name, fn in registry._RULES.items() if registry.is_builtin(fn))


@pytest.mark.parametrize("name", OWN)
def test_every_registered_name_is_an_operator(name: str) -> None:
    namespace, operator, *overload = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), operator)
    assert not overload or overload[0] in packet.overloads()


def test_an_operator_in_place_has_the_rule_of_the_other() -> None:
    assert find("aten.relu_.default") is find("aten.relu.default") is not None
    assert find("aten.add_.Tensor") is add


def test_the_rule_of_an_overload_comes_first() -> None:
    assert find("aten.max.dim") is not find("aten.max.other")
    assert find("aten.pow.Tensor_Scalar") is not find("aten.pow.Tensor_Tensor")
    assert find("aten.pow_.Scalar") is find("aten.pow.Tensor_Tensor")


def test_an_overload_that_writes_into_a_given_tensor_has_the_rule_without_it() -> None:
    assert find("aten.add.out") is find("aten.add.Tensor_out") is not None
    assert find("aten.sum.IntList_out") is not None
    assert find("aten.to.dtype_layout") is keeps_zero  # it only ends like one

    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        z = torch.zeros_like(y)
        torch.mul(y, 2, out=z)
        return m.b(z)

    found = prove(Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)), IMAGES)
    assert together(found, "a.weight:0", "b.weight:1")


def test_a_rule_of_ones_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    net = Net(
        lambda m, x: m.b(torch.ops.aten.rot90(m.a(x), 2, [2, 3])),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
    )
    graph = planc.trace(net, IMAGES)
    with pytest.raises(planc.AnalysisError, match=r"planc\.rule"):
        planc.analyze(graph, strict=True)

    @rule("aten.rot90")
    def turned(facts: Facts, x: Labelled, k: int, dims: Sequence[int]) -> Labelled:
        return pin_dims(facts, x, dims, "turned")

    assert len(planc.analyze(graph, strict=True).groups) == 1
    prove(net, IMAGES)


def test_a_rule_that_is_wrong_about_the_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    @rule("aten.rot90")
    def wrong(facts: object, x: Labelled, *_: object) -> Labelled:
        return Labelled(())

    net = Net(lambda m, x: torch.rot90(m.a(x), 2), a=nn.Conv2d(3, 4, 1))
    with pytest.raises(planc.AnalysisError, match="traced"):
        planc.analyze(planc.trace(net, IMAGES))
