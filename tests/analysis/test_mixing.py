"""Every reason why a group mixes is named, once, in a stable order, within the limits of files."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import planc
from planc.files.disk.limits import DEFAULT
from planc.ir.groups import apart, joined

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class Mixes(nn.Module):
    """Normalises, averages and uses its width as a number."""

    def __init__(self, *, norm: bool = False, mean: bool = False, number: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)
        self.norm, self.mean, self.number = norm, mean, number

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.number:
            x = x * x.shape[-1] ** -0.5
        if self.norm:
            x = nn.functional.layer_norm(x, x.shape[-1:])
        if self.mean:
            x = x - x.mean(-1, keepdim=True)
        y: Tensor = self.down(torch.relu(x))
        return y


NUMBER, NORM, MEAN = "its width is used as a number", "layer norm over it", "a mean over it"


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("number", [True, False])
def test_every_reason_is_in_the_plan_the_report_and_the_explanation(
    norm: bool, mean: bool, number: bool
) -> None:
    model = Mixes(norm=norm, mean=mean, number=number).eval()
    plan = planc.compile(model, X, ratio=0.5)
    expected = {reason for reason, there in ((NORM, norm), (MEAN, mean), (NUMBER, number)) if there}
    (group,) = plan.groups
    found = set(apart(group.mixing))
    assert expected <= found
    assert bool(found) == bool(expected)
    report = planc.verify(plan, model, planc.apply(plan, model), X)
    text = "\n".join(planc.analyze(planc.trace(model, X)).explain("up.weight", 0))
    for reason in found:
        assert reason in str(report)
        assert reason in text
        assert text.count(reason) == 1
    graph = planc.compile(model, X, ratio=0.5, target="graph")
    assert set(apart(graph.groups[0].mixing)) == found - {NUMBER}


@given(st.lists(st.text(max_size=400), max_size=12))
def test_reasons_are_joined_once_each_in_order_and_within_the_limit(reasons: list[str]) -> None:
    text = joined(reasons)
    assert len(text.encode()) <= DEFAULT.string
    parts = list(dict.fromkeys(reason.replace("; ", ", ") for reason in reasons))
    whole = "; ".join(parts)
    if len(whole.encode()) <= 1000:
        assert text == whole
    else:
        shown = text.split("; ")[:-1]
        assert shown == parts[: len(shown)]
        assert text.endswith(f"and {len(parts) - len(shown)} more")
