"""Claims of loadable plans: they remove only what a configuration can say, refuse what it cannot,
and are the default of models that save themselves.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.compile.loadable import limits
from planc.errors import PlancWarning, PolicyError
from planc.plan.plan import Plan
from tests.compile.test_description import Attention, Config, Model, fields

X = torch.randn(2, 3, 6)


class Scaling(Attention):
    """Attention by a number that it takes from the heads' width when it is made."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scaling = self.width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scaling


class Feed(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(config.hidden, 12), nn.Linear(12, config.hidden)
        if hasattr(config, "inner"):
            self.up, self.down = (
                nn.Linear(config.hidden, config.inner),
                nn.Linear(config.inner, config.hidden),
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x).relu())
        return out


class Decoder(Model):
    """Saves itself, as the models of a library do."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(m for _ in range(2) for m in (Scaling(config), Feed(config)))

    def save_pretrained(self, folder: str) -> None:
        raise NotImplementedError


def decoder(**given: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(Config(**{"inner": 12, **given})).eval()


def loads(plan: Plan, net: Any) -> bool:
    smaller: Any = planc.apply(plan, net)
    made = type(net)(Config.from_dict(smaller.config.to_dict())).eval()
    made.load_state_dict(smaller.state_dict())
    return bool(made(X).equal(smaller(X)))


@pytest.mark.parametrize("given", [{}, {"width": 4}, {"width": 8}, {"heads": 2, "width": None}])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_the_default_plan_of_a_model_that_saves_itself_is_loadable(
    given: dict[str, Any], ratio: float
) -> None:
    net = decoder(**given)
    plan = planc.compile(net, X, ratio=ratio)
    assert fields(plan)["config.inner"] == 12 - 12 * ratio
    assert fields(plan)["config.hidden"] == 16 - 16 * ratio
    assert loads(plan, net)


def test_heads_go_as_a_whole_where_their_width_is_fixed() -> None:
    plan = planc.compile(decoder(), X, ratio=0.5)
    assert fields(plan) == {"config.hidden": 8, "config.heads": 2, "config.inner": 6}
    assert all(not group.removed for group in plan.groups if group.kind == "head_dim")


def test_one_number_for_all_layers_means_equal_widths() -> None:
    net = decoder()
    some = planc.compile(net, X, ratio=0.5, keep="blocks.1.up", loadable=True)
    assert "config.inner" not in fields(some)
    assert loads(some, net)
    for options in ({"params": 0.5}, {"ratio": 0.4, "ranking": "global", "equal": True}):
        assert loads(planc.compile(net, X, loadable=True, **options), net)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": {"head_dim": 0.5}}, r"stays whole: .*; leave it out of the request"),
        ({"ratios": {"blocks.0.q": 0.5}}, "stays whole"),
        ({"remove": {"blocks.0.q": [0]}}, "blocks.0.q"),
        ({"ranking": "global"}, "one number for all layers; add equal=True"),
        ({"target": "graph"}, "a graph has no configuration"),
    ],
)
def test_a_request_that_no_configuration_can_say_is_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(PolicyError, match=words):
        planc.compile(decoder(), X, loadable=True, **options)


@pytest.mark.parametrize(
    "options",
    [{"kinds": {"head_dim": 0.5}}, {"ranking": "global"}, {"remove": {"blocks.0.q": [0]}}],
)
def test_without_being_asked_for_one_warning_names_the_obstacle(options: dict[str, Any]) -> None:
    net = decoder()
    with pytest.warns(PlancWarning, match=r"from_pretrained cannot load it: .*; compile") as told:
        plan = planc.compile(net, X, **options)
    assert len(told) == 1
    assert plan == planc.compile(net, X, loadable=False, **options)


def test_a_model_without_a_configuration_has_no_loadable_plan() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(PolicyError, match="the model has no configuration"):
        planc.compile(net, X, ratio=0.5, loadable=True)
    planc.compile(net, X, ratio=0.5)


class Fixed(Decoder):
    """All its widths follow one scale."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scale = config.hidden**-0.5 + config.inner**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def test_a_configuration_that_fixes_everything_is_said() -> None:
    net = Fixed(Config(inner=12, hidden=16, heads=1)).eval()
    with pytest.raises(PolicyError, match=r"(nothing can be removed|no configuration describes)"):
        planc.compile(net, X, ratio=0.5, loadable=True)
    with pytest.warns(PlancWarning, match="scale would be"):
        planc.compile(net, X, ratio=0.5)


def test_every_limit_has_a_reason() -> None:
    found = limits(planc.analyze(planc.trace(decoder(), X)))
    assert found is not None
    assert found.reasons
    assert all("configuration" in reason for reason in found.reasons.values())
    assert limits(planc.analyze(planc.trace(nn.Linear(6, 2), X))) is None
