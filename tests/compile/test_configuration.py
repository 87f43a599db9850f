"""Claims of configurations: fields that a forward reads are attributes like any other, and those it
does not read are set only where they make exactly the pruned model.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import MalformedFile, PlancError, StalePlan
from planc.modules.attributes import set_attributes
from planc.plan.plan import AttributeChange, Plan

X = torch.randn(2, 3, 6)


@dataclass
class Config:
    """What a library writes beside the weights."""

    hidden: int = 16
    inner: int = 12
    heads: int = 4
    layers: int = 2
    scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Config:
        return cls(**fields)


class Block(nn.Module):
    """Cuts what one matrix makes for two purposes where the configuration says."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.both = nn.Linear(config.hidden, 2 * config.inner)
        self.back = nn.Linear(config.inner, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        y = self.both(x)
        gate, value = y[..., : self.config.inner], y[..., self.config.inner :]
        return x + self.back(gate.sigmoid() * value)


class Model(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(6, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last = nn.Linear(config.hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.last(x)
        return out


class Scaled(Model):
    """Takes a number from its width when it is made."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scale = config.hidden**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Placed(Model):
    """Computes its positions when it is made; they are in no state dict."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        positions = torch.linspace(0, 1, 6, device="cpu")  # as rotary tables are
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.positions)  # type: ignore[operator]


def model(kind: type[Model] = Model, **fields: int) -> Model:
    torch.manual_seed(0)
    return kind(Config(**fields)).eval().double()  # type: ignore[arg-type]


def fields(plan: Plan) -> dict[str, tuple[Any, Any]]:
    return {c.name: (c.before, c.after) for c in plan.attributes if "." in c.name}


def test_read_and_unread_fields_build_the_pruned_model() -> None:
    net = model()
    plan = planc.compile(net, X.double(), ratio=0.5)
    assert fields(plan) == {"config.hidden": (16, 8), "config.inner": (12, 6)}
    smaller = planc.apply(plan, net)
    report = planc.verify(plan, net, smaller, X.double())
    assert report.error is not None
    assert any("made anew from its configuration" in line for line in report.checks)
    assert (net.config.hidden, smaller.config.hidden) == (16, 8)
    assert all(block.config is smaller.config for block in smaller.blocks)  # type: ignore[union-attr]
    anew = Model(smaller.config).double()
    anew.load_state_dict(smaller.state_dict())
    assert anew(X.double()).equal(smaller(X.double()))


def test_a_model_on_the_meta_device_has_the_same_configuration() -> None:
    real = model(Placed)
    plan = planc.compile(real, X.double(), ratio=0.5)
    assert fields(plan) == {"config.hidden": (16, 8), "config.inner": (12, 6)}
    meta = copy.deepcopy(real).to("meta")
    weights = real.state_dict()
    assert planc.compile(meta, X.double().to("meta"), ratio=0.5, weights=weights) == plan


def test_a_shared_field_binds_its_modules() -> None:
    """One number cuts in both blocks, so both keep equally much."""
    plan = planc.compile(model(), X.double(), ratio=0.5, keep="blocks.0.both.*")
    assert all(not group.removed for group in plan.groups if "blocks" in group.name)


def test_one_field_for_two_different_sizes_stays_unchanged() -> None:
    """Two matrices as wide as the field says, of which one stays whole."""

    class Two(Model):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Linear(config.hidden, config.inner),
                    nn.ReLU(),
                    nn.Linear(config.inner, config.hidden),
                )
                for _ in range(config.layers)
            )

    net = model(Two)
    even = planc.compile(net, X.double(), ratio=0.5)
    assert fields(even) == {"config.hidden": (16, 8), "config.inner": (12, 6)}
    uneven = planc.compile(net, X.double(), ratio=0.5, keep="blocks.0.*")
    assert fields(uneven) == {}
    smaller = planc.apply(uneven, net)
    report = planc.verify(uneven, net, smaller, X.double())
    assert any("does not describe the pruned model" in line for line in report.checks)


def test_a_number_derived_from_a_width_is_found() -> None:
    net = model(Scaled)
    plan = planc.compile(net, X.double(), ratio=0.5)
    assert "config.hidden" not in fields(plan)
    smaller = planc.apply(plan, net)
    report = planc.verify(plan, net, smaller, X.double())
    assert any("scale would be" in line or "of shape" in line for line in report.checks)


def test_fields_are_restored_and_saved(tmp_path: Any) -> None:
    net = model()
    plan = planc.compile(net, X.double(), ratio=0.5)
    planc.save_plan(plan, tmp_path / "p.planc")
    assert planc.load_plan(tmp_path / "p.planc") == plan
    smaller, removed = planc.apply(plan, net, keep_removed=True)
    assert planc.restore(plan, smaller, removed).config == net.config


def test_plans_chain_through_configurations() -> None:
    net = model()
    first = planc.compile(net, X.double(), ratio=0.5)
    half = planc.apply(first, net)
    second = planc.compile(half, X.double(), ratio=0.5)
    both = planc.compose(first, second)
    assert fields(both) == {"config.hidden": (16, 4), "config.inner": (12, 3)}
    assert planc.apply(both, net).config == planc.apply(second, half).config


def test_another_configuration_is_another_model() -> None:
    net = model()
    plan = planc.compile(net, X.double(), ratio=0.5)
    other = copy.deepcopy(net)
    other.config.inner = 10
    with pytest.raises(StalePlan, match=r"config\.inner = 12, found 10"):
        planc.apply(plan, other)
    immaterial = copy.deepcopy(net)
    immaterial.config.heads = 2  # no forward reads it
    planc.apply(plan, immaterial)


def test_a_copy_sharing_its_configuration_is_refused() -> None:
    class Shared(Config):
        def __deepcopy__(self, memo: Any) -> Shared:
            return self

    net = Model(Shared()).eval()
    plan = planc.compile(model().float(), X, ratio=0.5)
    with pytest.raises(PlancError, match="the original's"):
        planc.apply(plan, net)


class Size(Enum):
    """What a library calls its kinds: one object each, however often it is copied."""

    SMALL = 1
    LARGE = 2


def test_enumeration_members_are_plain_values() -> None:
    net: Any = model()
    net.kind = Size.LARGE
    plan = planc.compile(net, X.double(), ratio=0.5)
    smaller = planc.apply(plan, net)
    assert smaller.kind is Size.LARGE
    assert "config.hidden" in fields(plan)


@pytest.mark.parametrize(
    "name",
    [
        *("config._private", "config.__class__", "_config.inner", "config.__dict__.inner"),
        *("config.", ".inner", "config..inner", "config.to_dict", "config.to_dict.inner"),
        *("blocks.0", "first.in_features", "first.weight", "config.a.b.c.d", "forward.x"),
    ],
)
def test_no_plan_reaches_beyond_plain_data(name: str) -> None:
    net = model()
    with pytest.raises((MalformedFile, StalePlan)):
        set_attributes(net, [AttributeChange("", name, 12, 6)])
    assert net.config == Config()


class Residual(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, inner), nn.Linear(inner, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(self.up(x).relu())
        return y


class Narrowing(nn.Module):
    """Has narrower blocks from one to the next."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = (config.inner - 2 * number for number in range(config.layers))
        self.blocks = nn.ModuleList(Residual(width) for width in widths)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.last(x)
        return y


@pytest.mark.parametrize(("block", "described"), [(0, True), (1, False)])
def test_a_configuration_of_blocks_that_narrow_describes_the_last_ones(
    block: int, described: bool
) -> None:
    net = Narrowing(Config(layers=3)).eval()
    plan = planc.compile(net, X, remove={"blocks": [block]})
    report = planc.verify(plan, net, planc.apply(plan, net), X)
    assert fields(plan) == (
        {"config.inner": (12, 10), "config.layers": (3, 2)} if described else {}
    )
    assert any("made anew" in text for text in report.checks) == described
    assert any("not describe the pruned model" in text for text in report.not_shown) != described
