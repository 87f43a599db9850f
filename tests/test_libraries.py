"""Models of other libraries, through the life of a pruned model: compiled, run, applied, verified,
trained, saved and loaded (``pip install -e '.[libraries]'``).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.files.formats import encode_plan
from planc.modules.nesting import leaves
from tests.zoo.libraries import TABLE, Entry


def _missing(name: str) -> bool:
    return find_spec(name.partition(":")[0]) is None


CASES = [
    pytest.param(name, marks=pytest.mark.skipif(_missing(name), reason="not installed"))
    for name in TABLE
]


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_runs_in_between_goes_through_every_step(name: str, tmp_path: Path) -> None:
    entry = TABLE[name]
    model = _built(entry)
    args, kwargs = entry.call(2)
    plan = planc.compile(model, args, kwargs, ratio=0.5)
    assert plan.cost_after.params < plan.cost_before.params
    other, named = entry.call(3)
    model(*other, **named)
    assert encode_plan(planc.compile(model, args, kwargs, ratio=0.5)) == encode_plan(plan)
    smaller = planc.apply(plan, model, args=args, kwargs=kwargs)
    smaller(*other, **named)
    planc.verify(plan, model, smaller, args, kwargs)
    _train(smaller, args, kwargs)
    planc.save(tmp_path / "smaller.safetensors", smaller, plan)
    loaded = planc.load(tmp_path / "smaller.safetensors", _built(entry))
    for found, expected in zip(
        _outputs(loaded, args, kwargs), _outputs(smaller, args, kwargs), strict=True
    ):
        assert torch.equal(found, expected)


def _built(entry: Entry) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return entry.make().train(entry.train)


def _outputs(model: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        result = model.eval()(*args, **kwargs)
    return [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]


def _train(model: nn.Module, args: Any, kwargs: Any) -> None:
    """One step of an optimizer towards small outputs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    result = model(*args, **kwargs)
    outputs = [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
    sum(y.float().square().mean() for y in outputs if y.is_floating_point()).backward()
    optimizer.step()
