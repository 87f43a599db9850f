"""Proven removals: operators without a rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planc
from planc.errors import AnalysisError
from tests.support.proving import (
    TOKENS,
    Net,
    prove,
    reasons,
)


def test_an_operator_without_a_rule_pins() -> None:
    net = Net(lambda m, x: m.b(torch.linalg.qr(m.a(x))[0]), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert not found.groups
    assert "has no rule" in reasons(found, "a.weight", 0)
    graph = planc.trace(net, TOKENS.double())
    with pytest.raises(
        AnalysisError, match=r"no rule for operator aten\.linalg_qr.*test_without_rule\.py"
    ):
        planc.analyze(graph, strict=True)
