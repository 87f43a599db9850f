"""Proven removals: sizes and numbers computed by modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import planc
from tests.support.proving import (
    IMAGES,
    TOKENS,
    Net,
    conv,
    prove,
    prunable,
    reasons,
)


def test_sizes_from_shapes_are_solved_by_themselves() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, c = (y := m.a(x)).shape
        return m.b(y.reshape(b * n, c)).reshape(b, n, -1)

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    assert prunable(found, "module") == {"a.weight:0"}
    assert not found.equations("module").attributes


def test_attributes_used_in_views_are_rewritten() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(-1, m.hidden).view(2, 5, m.hidden)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
        hidden=8,
    )
    found = prove(net, TOKENS)
    plan = planc.compile(net, (TOKENS.double(),), ratio=0.5)
    assert ("", "hidden", 8, 4) in [(c.module, c.name, c.before, c.after) for c in plan.attributes]
    assert prunable(found, "module") == {"a.weight:0"}


def test_a_tuple_of_sizes_is_rewritten() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(*m.shape).flatten(2)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
        shape=(2, 5, 4, 2),
    )
    found = prove(net, TOKENS)
    plan = planc.compile(net, (TOKENS.double(),), ratio=0.5)
    changed = next(change for change in plan.attributes if change.name == "shape")
    assert changed.before == (2, 5, 4, 2)
    assert changed.after == (2, 5, 4, 1)
    assert len(prunable(found, "module")) == 2


def test_literals_in_forward_pin_the_module_alone() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(10, 8).view(2, 5, 8)), a=nn.Linear(6, 8), b=nn.Linear(8, 2)
    )
    found = prove(net, TOKENS)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}
    constraint = found.equations("module").constraints[0]
    assert "test_computed.py:" in constraint.reason
    assert "aten.view" in constraint.reason


def test_one_attribute_for_two_widths_ties_them() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(m.a(x).view(10, m.hidden)) + m.d(m.b(x).view(10, m.hidden))

    net = Net(
        run, a=nn.Linear(6, 8), b=nn.Linear(6, 8), c=nn.Linear(8, 2), d=nn.Linear(8, 2), hidden=8
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"a.weight:0", "b.weight:0"}
    assert found.equations("module").constraints
    assert not found.equations("graph").constraints


def test_two_numbers_of_one_value_in_one_call_are_told_apart_or_left_alone() -> None:
    """``[:, :4, m.k]`` calls two operators; the literal in it stands beside an attribute."""
    net = Net(
        lambda m, x: m.b(m.a(x)[:, :4, m.k, None]) + m.c(m.d(x).view(2, m.k, 36)[..., None]),
        a=conv(3, 8),
        b=conv(4, 2),
        c=conv(4, 2),
        d=conv(3, 4),
        k=4,
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == set()
    assert "not read by the traced run" in reasons(found, "a.weight", 0)


def test_a_width_used_as_a_number_mixes() -> None:
    net = Net(
        lambda m, x: m.b((y := m.a(x)) / y.shape[-1] ** 0.5), a=nn.Linear(6, 8), b=nn.Linear(8, 2)
    )
    found = prove(net, TOKENS)
    assert found.mixing(0, "module")
    assert not found.mixing(0, "graph")
