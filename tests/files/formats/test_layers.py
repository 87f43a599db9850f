"""The sizes that a plan writes to attributes are those of the tensors that it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import planc
from planc.errors import MalformedFile
from planc.files.formats import decode_plan, encode_plan
from planc.plan.fingerprint import attributes_digest, modules_after
from planc.plan.plan import Plan, WidthConstraint


def plan_of(model: nn.Module, *shape: int) -> Plan:
    return planc.compile(model.eval(), torch.randn(*shape), ratio=0.5)


def with_value(plan: Plan, module: str, name: str, after: int) -> Plan:
    """The plan with another value for an attribute, and the digest that goes with it."""
    changes = tuple(
        replace(c, after=after) if (c.module, c.name) == (module, name) else c
        for c in plan.attributes
    )
    assert changes != plan.attributes
    digest = attributes_digest(modules_after(plan.modules, changes))
    return plan.replace(attributes=changes, result=replace(plan.result, attributes=digest))


MODELS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), (2, 4)),
    "norm": (
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)),
        (2, 3, 4, 4),
    ),
    "grouped": (
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)),
        (2, 3, 4, 4),
    ),
    "weight norm": (nn.Sequential(weight_norm(nn.Linear(4, 8)), nn.Linear(8, 2)), (2, 4)),
    "tied": (nn.Sequential(nn.Embedding(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)), (2, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_size_but_that_of_the_tensor_is_refused(name: str) -> None:
    model, shape = MODELS[name]
    plan = (
        planc.compile(model, torch.zeros(2, 4, dtype=torch.long), ratio=0.5)
        if name == "tied"
        else plan_of(model, *shape)
    )
    assert decode_plan(encode_plan(plan)) == plan
    tried = 0
    for change in plan.attributes:
        if not change.name.endswith(("features", "channels")):
            continue
        for after in (-1, 0, change.after - 1, change.after + 1, change.before, 1 << 40):
            with pytest.raises(MalformedFile, match=rf"after: {after} for {change.name} of"):
                encode_plan(with_value(plan, change.module, change.name, after))
            tried += 1
    assert tried


def test_an_attribute_of_such_a_name_that_was_no_size_is_its_own() -> None:
    class Own(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.num_features = 5

    plan = plan_of(nn.Sequential(nn.Linear(4, 8), Own(), nn.Linear(8, 2)), 2, 4)
    assert decode_plan(encode_plan(plan)) == plan


def test_a_constraint_stands_once() -> None:
    plan = plan_of(MODELS["linear"][0], 2, 4)
    some = WidthConstraint("a = b", "because"), WidthConstraint("a = b", "for another reason")
    assert decode_plan(encode_plan(plan.replace(constraints=some))).constraints == some
    with pytest.raises(MalformedFile, match=r"constraints: .* is there twice"):
        encode_plan(plan.replace(constraints=(*some, some[0])))
