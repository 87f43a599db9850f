"""Modules that are not traced into: what their rule says of them is proved like everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import AnalysisError, PlancError, TraceError, VerificationError
from planc.rules import leaf
from planc.rules.families.contraction import linear, matmul
from planc.rules.labels import Labelled, unify
from planc.rules.labels.facts import Facts
from tests.exported import export
from tests.support.proving import Net, free, prove, prunable, reasons, together

TOKENS = torch.randn(2, 3, 6)


class Opaque(nn.Module):
    """A linear layer and a gate of fixed widths, computed in NumPy."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.shape, self.scale = (inner, width), 2
        self.mix, self.gain = nn.Linear(inner, width), nn.Parameter(torch.ones(width))
        self.spare = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        weight, bias, gain = (
            t.detach().numpy() for t in (self.mix.weight, self.mix.bias, self.gain)
        )
        y = x.detach().numpy().reshape(-1, self.shape[0]) @ weight.T + bias
        y = (np.tanh(y) * gain * self.scale).reshape(*x.shape[:-1], self.shape[1])
        found = torch.from_numpy(y)
        return found if shift is None else found + shift


class Same(Opaque):
    """Has the rule of the class whose forward it has."""


class Other(Opaque):
    """Does something else, so it has no rule."""

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return self.mix(x) * self.gain  # type: ignore[no-any-return]


class Valued(Opaque):
    """Has a rule, but nobody says what comes out."""

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return Opaque.forward(self, x, shift)


class Halves(nn.Module):
    """Returns two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.from_numpy(x.detach().numpy() * 2.0)
        return y, -y


def _empty(module: Opaque, x: Tensor, shift: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], module.shape[1])


@planc.rule(Opaque, meta=_empty)
@planc.rule(Valued)
def opaque(
    cx: Facts,
    x: Labelled,
    shift: Labelled | None = None,
    *,
    mix_weight: Labelled,
    mix_bias: Labelled,
    gain: Labelled,
    shape: tuple[int, int],
) -> Labelled:
    cx.demand("shape", 0, x, x.rank - 1)
    y = unify(cx, linear(cx, x, mix_weight, mix_bias), gain, "mul")
    cx.demand("shape", 1, y, y.rank - 1)
    return y if shift is None else unify(cx, y, shift, "add")


@planc.rule(Halves, meta=lambda module, x: (torch.empty_like(x), torch.empty_like(x)))
def halves(cx: Facts, x: Labelled) -> tuple[Labelled, Labelled]:
    return x, x


def net(kind: type[Opaque] = Opaque, run: Any = None) -> Net:
    parts = {"a": nn.Linear(6, 8), "leaf": kind(8, 5), "b": nn.Linear(5, 2)}
    return Net(run or (lambda m, x: m.b(m.leaf(m.a(x)))), **parts)


@pytest.mark.long
@pytest.mark.parametrize("kind", [Opaque, Same, Valued])
def test_a_leaf_is_pruned_as_its_rule_says_in_both_targets(kind: type[Opaque]) -> None:
    found = prove(net(kind), TOKENS)
    where = "real" if kind is Valued else "meta"
    assert found.graph.frontend == f"record ({where} tensors)"
    assert [node.op.rsplit(".", 1)[1] for node in found.graph.nodes if node.leaf] == [
        "Opaque" if kind is Same else kind.__name__
    ]
    assert together(found, "a.weight:0", "leaf.mix.weight:1")
    assert together(found, "leaf.mix.weight:0", "leaf.gain:0", "b.weight:1")
    for target in ("module", "graph"):
        assert prunable(found, target) == {"a.weight:0", "leaf.gain:0"}


def test_its_attributes_follow_whatever_the_target() -> None:
    model = net().eval()
    for target, count in (("module", 7), ("graph", 3)):
        plan = planc.compile(model, TOKENS, ratio=0.5, target=target)  # type: ignore[arg-type]
        changes = {(c.module, c.name): c.after for c in plan.attributes}
        assert len(changes) == count - 2 * (target == "module")
        assert changes["leaf", "shape"] == (4, 3)
        assert changes["leaf.mix", "in_features"] == 4
        inner = planc.apply(plan, model).get_submodule("leaf")
        assert (type(inner), inner.shape) == (Opaque, (4, 3))
        assert model.leaf.shape == (8, 5)


def test_a_leaf_in_a_graph_whose_attributes_are_wrong_is_found_out() -> None:
    model = net().eval()
    plan = planc.compile(model, TOKENS, ratio=0.5, target="graph")
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, TOKENS)
    vars(smaller.get_submodule("leaf"))["scale"] = 3
    with pytest.raises(VerificationError, match="differs from that of the rewritten graph"):
        planc.verify(plan, model, smaller, TOKENS)
    vars(smaller)["_modules"]["leaf"] = Other(4, 3)
    with pytest.raises(VerificationError, match="is a Other, was a Opaque"):
        planc.verify(plan, model, smaller, TOKENS)


def test_tensors_that_its_rule_does_not_name_stay_whole() -> None:
    found = prove(net(), TOKENS)
    assert reasons(found, "leaf.spare", 0).startswith("spare is not named by its module's rule")
    assert free(found, "leaf.gain", 0)


def test_it_may_be_called_twice_with_keywords_and_return_several() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        first, second = m.both(m.leaf(y, shift=m.c(x)))
        return m.b(first * second + m.leaf(x=y))  # type: ignore[no-any-return]

    model = net(run=run)
    model.both, model.c = Halves(), nn.Linear(6, 5)
    found = prove(model, TOKENS)
    assert together(found, "leaf.mix.weight:0", "c.weight:0")


class Square(nn.Module):
    """Two widths, one attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.weight = width, nn.Parameter(torch.ones(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.detach().numpy().reshape(-1, self.width) @ self.weight.detach().numpy()
        return torch.from_numpy(y.reshape(*x.shape[:-1], self.width))


@planc.rule(Square, meta=lambda module, x: torch.empty_like(x))
def square(cx: Facts, x: Labelled, *, weight: Labelled, width: int) -> Labelled:
    y = matmul(cx, x, weight)
    for value in (x, y):
        cx.demand("width", None, value, value.rank - 1)
    return y


def test_its_attributes_bind_the_graph_too() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(m.leaf(m.a(x)))  # type: ignore[no-any-return]

    found = prove(Net(run, a=nn.Linear(6, 8), leaf=Square(8), b=nn.Linear(8, 2)), TOKENS)
    for target in ("module", "graph"):
        (constraint,) = found.equations(target).constraints
        assert constraint.groups == {0, 1}
        assert "width of leaf.tests.rules.test_leaf.Square in leaf" in constraint.reason
        assert prunable(found, target) == {"a.weight:0", "leaf.weight:1"}


def test_a_rule_that_names_what_is_not_there_is_refused() -> None:
    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._hidden, self.shown = 3, 4

        def forward(self, x: Tensor) -> Tensor:
            return x * 1

    @planc.rule(Lone, meta=lambda module, x: torch.empty_like(x))
    def lone(cx: Facts, x: Labelled, *, _hidden: int) -> Labelled:
        return x

    match = r"rule lone: missing a required .*'_hidden'.* it can name shown"
    with pytest.raises(AnalysisError, match=match):
        planc.analyze(planc.trace(nn.Sequential(nn.Linear(6, 4), Lone()), TOKENS))


def test_a_wrong_rule_is_found_out() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.detach().numpy()
            return torch.from_numpy(y - y.mean(-1, keepdims=True))

    @planc.rule(Centred, meta=lambda module, x: torch.empty_like(x))
    def centred(cx: Facts, x: Labelled) -> Labelled:
        return x  # forgets that all channels are in the mean

    parts = {"a": nn.Linear(6, 8), "leaf": Centred(), "b": nn.Linear(8, 2)}
    with pytest.raises(VerificationError, match="differs from that of the masked original"):
        prove(Net(lambda m, x: m.b(m.leaf(m.a(x))), **parts), TOKENS)


def test_a_subclass_with_a_forward_of_its_own_is_looked_into() -> None:
    assert leaf(Same) is leaf(Opaque) is not None
    assert leaf(Other) is None
    assert not any(node.leaf for node in prove(net(Other), TOKENS).graph.nodes)


def test_what_a_leaf_must_not_do() -> None:
    class Text(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "text"

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = 3

        def forward(self, x: Tensor) -> Tensor:
            return x

    planc.rule(Text, meta=lambda module, x: "text")(lambda cx, x: x)
    planc.rule(Named, meta=lambda module, x: x)(lambda cx, x: x)
    with pytest.raises(TraceError, match="a leaf returns a tensor, or a tuple of tensors"):
        planc.trace(nn.Sequential(nn.Linear(6, 4), Text()), TOKENS)
    with pytest.raises(TraceError, match="an argument, an attribute and a tensor of one name"):
        planc.trace(Net(lambda m, x: m.n(x=x), n=Named()), TOKENS)
    with pytest.raises(TraceError, match="leaf is a Opaque, whose rule says"):
        export(net(), TOKENS)


def test_a_rule_that_gives_too_many_results_is_refused() -> None:
    class Once(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1

    planc.rule(Once, meta=lambda module, x: torch.empty_like(x))(lambda cx, x: (x, x))
    with pytest.raises(AnalysisError, match=r"rule for leaf\..*Once in 1 .*: gives 2 results"):
        planc.analyze(planc.trace(nn.Sequential(nn.Linear(6, 4), Once()), TOKENS))
    assert issubclass(AnalysisError, PlancError)
