"""Claims of the search for fields: one value in several fields, fields with a default in the class,
configurations of models inside others, and the obstacle where no fields describe the result.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import MalformedFile, StalePlan
from planc.modules.attributes import set_attributes
from planc.plan.plan import AttributeChange, Plan

X = torch.randn(2, 3, 6)


class Config:
    """Plain fields, whatever is given."""

    def __init__(self, **given: Any) -> None:
        vars(self).update({"hidden": 16, "heads": 4, **given})

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Config:
        return cls(**fields)


class Attention(nn.Module):
    """Attention whose heads' width has a default."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.width = getattr(config, "width", None) or config.hidden // config.heads  # type: ignore[attr-defined]
        inside = self.width * config.heads  # type: ignore[attr-defined]
        self.q, self.k, self.v = (nn.Linear(config.hidden, inside) for _ in range(3))  # type: ignore[attr-defined]
        self.out = nn.Linear(inside, config.hidden)  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, self.width)).transpose(1, 2) for f in self.maps)
        out: Tensor = self.out(
            nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
            .transpose(1, 2)
            .flatten(2)
        )
        return out

    @property
    def maps(self) -> tuple[nn.Linear, ...]:
        return self.q, self.k, self.v


class Model(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(6, config.hidden)
        self.blocks = nn.ModuleList(Attention(config) for _ in range(2))
        self.last = nn.Linear(config.hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.last(x)
        return out


class Outer(nn.Module):
    """Holds a model and knows nothing of its configuration."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).relu()
        return out


def model(**given: Any) -> Model:
    torch.manual_seed(0)
    return Model(Config(**given)).eval()


def fields(plan: Plan) -> dict[str, Any]:
    return {c.name: c.after for c in plan.attributes if "." in c.name}


def anew(smaller: Any) -> Model:
    made = Model(Config.from_dict(smaller.config.to_dict()))
    made.load_state_dict(smaller.state_dict())
    return made.eval()


HEADS: dict[str, Any] = {"ratio": 0.0, "kinds": {"heads": 0.5}}


@pytest.mark.parametrize("width", [4, 8, 2])
def test_fields_of_one_value_are_told_apart(width: int) -> None:
    net = model(width=width)
    plan = planc.compile(net, X, **HEADS)
    assert fields(plan) == {"config.heads": 2}
    assert anew(planc.apply(plan, net))(X).equal(planc.apply(plan, net)(X))


@pytest.mark.parametrize("given", [{"width": None}, {"hidden": 12, "width": None, "heads": 2}])
def test_a_field_with_a_default_is_added_where_the_default_would_differ(
    given: dict[str, Any],
) -> None:
    net = model(**given)
    width = net.config.hidden // net.config.heads
    plan = planc.compile(net, X, ratio=0.5, only=["first"])
    assert fields(plan) == {"config.hidden": net.config.hidden // 2, "config.width": width}
    smaller = planc.apply(plan, net)
    assert anew(smaller)(X).equal(smaller(X))
    report = planc.verify(plan, net, smaller, X)
    assert any("made anew from its configuration" in line for line in report.checks)


def test_a_default_that_holds_is_not_added() -> None:
    net = model(width=None)
    plan = planc.compile(net, X, ratio=0.5, kinds={"heads": 0.5, "head_dim": 0.0})
    assert fields(plan) == {"config.hidden": 8, "config.heads": 2}


@pytest.mark.parametrize("held", [True, False])
def test_an_added_field_is_taken_out_again(held: bool) -> None:
    net = model(width=None)
    if not held:
        del net.config.width
    before = copy.deepcopy(vars(net.config))
    plan = planc.compile(net, X, ratio=0.5, only=["first"])
    smaller, removed = planc.apply(plan, net, keep_removed=True)
    assert smaller.config.width == 4
    restored = planc.restore(plan, smaller, removed)
    assert {**vars(restored.config), "width": None} == {**before, "width": None}
    assert restored(X).equal(net(X))


def test_an_added_field_is_saved_and_composed(tmp_path: Any) -> None:
    net = model(width=None)
    first = planc.compile(net, X, ratio=0.5, only=["first"])
    planc.save_plan(first, tmp_path / "p.planc")
    assert planc.load_plan(tmp_path / "p.planc") == first
    half = planc.apply(first, net)
    both = planc.compose(first, planc.compile(half, X, **HEADS))
    assert fields(both) == {"config.hidden": 8, "config.heads": 2, "config.width": 4}
    assert vars(planc.apply(both, net).config) == {**vars(half.config), "heads": 2}


def test_an_added_field_with_another_value_is_another_model() -> None:
    net = model(width=None)
    plan = planc.compile(net, X, ratio=0.5, only=["first"])
    net.config.width = 4
    with pytest.raises(StalePlan, match=r"config\.width.*is 4, where the plan adds it"):
        planc.apply(plan, net)


def test_only_integers_are_added_to_plain_data() -> None:
    for change in (
        AttributeChange("", "width", None, 4),
        AttributeChange("", "config.width", None, "4"),
        AttributeChange("", "config.to_dict", None, 4),
    ):
        with pytest.raises((MalformedFile, StalePlan)):
            set_attributes(model(width=None), [change])


def test_the_configuration_of_a_model_inside_another_follows() -> None:
    net = Outer(model()).eval()
    plan = planc.compile(net, X, ratio=0.5, kinds={"heads": 0.5, "head_dim": 0.0})
    assert fields(plan) == {"config.hidden": 8, "config.heads": 2}
    smaller = planc.apply(plan, net)
    report = planc.verify(plan, net, smaller, X)
    assert any("configuration at inner, it gives" in line for line in report.checks)
    assert anew(smaller.inner)(X).equal(smaller.inner(X))


class Scaled(Model):
    """Takes a number from its width when it is made, and computes a table."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scale = config.hidden**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def test_the_obstacle_is_the_one_of_the_nearest_fields() -> None:
    net = Scaled(Config()).eval()
    plan = planc.compile(net, X, ratio=0.5, kinds={"head_dim": 0.0})
    report = planc.verify(plan, net, planc.apply(plan, net), X)
    told = "scale would be 0.3535533905932738, it is 0.25; it follows hidden of the configuration"
    assert any(told in line for line in report.not_shown)


def test_reading_leaves_the_class_of_a_configuration_as_it_was() -> None:
    before = dict(vars(Config))
    planc.compile(model(width=None), X, ratio=0.5)
    assert dict(vars(Config)) == before
