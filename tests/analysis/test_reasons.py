"""Reasons: every pin has one, and every coupling names the operators in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from tests.support.proving import Net, free, reasons

IMAGES = torch.randn(2, 3, 4, 4)


def residual() -> Analysis:
    net = Net(
        lambda m, x: m.out(m.norm((y := m.stem(x)) + m.inner(y))).mean((2, 3)),
        stem=nn.Conv2d(3, 4, 1),
        inner=nn.Conv2d(4, 4, 3, padding=1),
        norm=nn.GroupNorm(2, 4),
        out=nn.Conv2d(4, 2, 1),
    )
    return planc.analyze(planc.trace(net.eval(), IMAGES))


def test_every_pin_has_a_reason() -> None:
    found = residual()
    pins = {f"{pin.tensor}:{pin.dim}": pin for pin in found.pins}
    assert set(pins) == {
        "stem.weight:1",
        "inner.weight:2",
        "inner.weight:3",
        "out.weight:0",
        "out.bias:0",
    }
    assert pins["out.weight:0"].reason == "an output of the model"
    assert "test_reasons.py:" in pins["stem.weight:1"].reason
    assert all(pin.count == pin.size for pin in pins.values())


def test_a_pin_of_some_indices_counts_them() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, :1]) + m.c(m.a(x)),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(1, 2, 1),
        c=nn.Conv2d(4, 2, 1),
    )
    found = planc.analyze(planc.trace(net, IMAGES))
    pin = next(pin for pin in found.pins if pin.tensor == "a.weight" and pin.dim == 0)
    assert (pin.count, pin.size) == (1, 4)
    assert str(pin).startswith("a.weight:0 (1 of 4): ")


def test_indices_that_go_with_a_row_are_not_pinned() -> None:
    net = Net(
        lambda m, x: m.b(m.s(m.a(x))),
        a=nn.Conv2d(3, 12, 1),
        s=nn.PixelShuffle(2),
        b=nn.Conv2d(3, 2, 1),
    )
    found = planc.analyze(planc.trace(net, IMAGES))
    assert free(found, "a.weight", 0)
    assert reasons(found, "a.weight", 1)


def test_a_coupling_names_its_members_and_operators() -> None:
    lines = residual().explain("stem.weight", 0)
    assert lines[0].startswith("4 indices of stem.weight:0 belong to group stem.weight:0 (4 ")
    assert any("mixing: group norm" in line for line in lines)
    assert any("inner.weight:0, coupled by aten.add.Tensor" in line for line in lines)
    assert any("out.weight:1, coupled by aten.conv2d.default in out" in line for line in lines)


def test_a_pin_is_explained_by_the_chain_to_its_cause() -> None:
    net = Net(lambda m, x: m.a(x).relu() * m.scale, a=nn.Conv2d(3, 4, 1), scale=torch.ones(4, 1, 1))
    found = planc.analyze(planc.trace(net, IMAGES))
    lines = found.explain("a.bias", -1)
    assert lines[0] == "4 indices of a.bias:0 are pinned:"
    assert any("coupled by aten." in line or "because of" in line for line in lines[1:])
    assert "an output of the model" in "\n".join(found.explain("scale", 0))


def test_what_has_nothing_to_remove_says_so() -> None:
    net = Net(lambda m, x: m.a(x) + x[0, 0, 0][m.count - 1].sum(), a=nn.Conv2d(3, 1, 1))
    net.register_buffer("count", torch.tensor([1, 2, 3, 4]))
    found = planc.analyze(planc.trace(net, IMAGES))
    assert "one coordinate" in found.explain("a.weight", 0)[0]
    assert "integers" in found.explain("count", 0)[0]


def test_constraints_on_widths_and_attributes_that_follow_are_named() -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        left, right = m.a(x).chunk(2, 1)
        return m.b((left * right).flatten(2).reshape(x.shape[0], m.width, -1))

    net = Net(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv1d(4, 2, 1), width=4)
    found = planc.analyze(planc.trace(net, IMAGES))
    lines = found.explain("a.weight", 0)
    assert "attribute width is kept a.weight:0" in lines
    net = Net(
        lambda m, x: m.b(m.a(x).view(x.shape[0], 8, -1)), a=nn.Conv2d(3, 8, 1), b=nn.Conv1d(8, 2, 1)
    )
    found = planc.analyze(planc.trace(net, IMAGES))
    (line,) = (line for line in found.explain("b.weight", 1) if " = " in line)
    assert line.startswith("8 = kept a.weight:0, for size of aten.view.default in the model (")
    assert line.endswith("(for the module only)")
    assert [str(bound) for bound in found.bounds("module")] == [
        line.removesuffix(" (for the module only)")
    ]
    assert not found.bounds("graph")


def test_errors_name_what_is_near() -> None:
    found = residual()
    with pytest.raises(planc.AnalysisError, match=r"nearest names are stem\.weight"):
        found.explain("stem.weigth", 0)
    with pytest.raises(planc.AnalysisError, match="there is no dimension 4"):
        found.explain("stem.weight", 4)
    with pytest.raises(planc.AnalysisError, match="no parameter or buffer"):
        found.explain("something else", 0)
