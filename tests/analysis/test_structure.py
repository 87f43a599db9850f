"""Structure: what a plan depends on makes it stale, and what a run leaves on a model does not."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import planc
from planc.analysis.structure import module_table
from planc.apply.validate import shapes_digest
from planc.errors import AlreadyApplied, StalePlan, VerificationError
from planc.files.formats import encode_plan
from planc.plan.fingerprint import attributes_digest, modules_after
from planc.plan.plan import CLASS, AttributeChange, ModuleSpec, Plan
from planc.rules import rule

IMAGES, OTHERS = torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 12, 12)


def table_of(plan: Plan) -> dict[str, dict[str, Any]]:
    return {spec.path: dict(spec.attributes) for spec in plan.modules}


# -- what is listed -------------------------------------------------------------------------------


class Listed(nn.Module):
    """Numbers that sizes are made of, that are compared only, and that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)
        self.heads, self.least, self.calls = 2, 1, 0
        self.path, self.ready, self.rates = "/weights", False, (1, "a")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] >= self.least
        y = self.up(x)
        y = y.view(y.shape[0], self.heads, y.shape[-1] // self.heads).transpose(1, 2)
        z: torch.Tensor = self.down(y.transpose(1, 2).flatten(1))
        return z


def test_a_table_lists_classes_and_the_numbers_behind_sizes() -> None:
    plan = planc.compile(Listed().eval(), torch.zeros(3, 4), ratio=0.5)
    assert table_of(plan) == {
        "": {CLASS: "Listed", "heads": 2},
        "up": {CLASS: "Linear", "in_features": 4, "out_features": 8},
        "down": {CLASS: "Linear", "in_features": 8, "out_features": 2},
    }


def test_what_layers_of_torch_are_made_with_is_listed_and_their_flags_are_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1))
    layer: Any = model[0]
    layer.i, layer.kind, layer.calls = 0, "stem", 3  # as builders of detectors leave them
    table = table_of(planc.compile(model.eval(), IMAGES, ratio=0.5))
    pairs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "output_padding": (0, 0)}
    sizes = {"in_channels": 3, "out_channels": 8, "kernel_size": (3, 3), "groups": 1}
    assert table["0"] == pairs | sizes | {CLASS: "Conv2d", "padding_mode": "zeros"}
    assert table["1"] == {CLASS: "ReLU"}


class Wide(nn.Module):
    """Compares its width, which nothing else reads."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.width = nn.Linear(4, 8), nn.Linear(8, 2), 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        if y.shape[-1] != self.width:
            raise ValueError("another width")
        z: torch.Tensor = self.down(y)
        return z


def test_an_attribute_that_is_compared_only_counts_where_plans_change_it() -> None:
    plan = planc.compile(Wide().eval(), torch.zeros(3, 4), ratio=0.5)
    assert table_of(plan)[""] == {CLASS: "Wide", "width": 8}
    other = Wide().eval()
    other.width = 9
    with pytest.raises(StalePlan, match="the model itself: expected width = 8, found 9"):
        planc.apply(plan, other)


class Called(nn.Module):
    """Is not looked into; its rule takes ``steps``."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.steps, self.calls = nn.Linear(8, 8), 3, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y: torch.Tensor = self.gate(x) * self.steps
        return y


@rule(Called, meta=lambda module, x: x)
def _called(cx: Any, x: Any, steps: int) -> Any:
    return x


def test_of_a_module_that_is_not_looked_into_the_numbers_of_its_rule_are_listed() -> None:
    model = nn.Sequential(nn.Linear(4, 8), Called(), nn.Linear(8, 2)).eval()
    plan = planc.compile(model, torch.zeros(3, 4), ratio=0.5)
    assert table_of(plan)["1"] == {CLASS: "Called", "steps": 3}
    model(torch.zeros(3, 4))
    planc.apply(plan, model)


# -- history --------------------------------------------------------------------------------------


class Anchored(nn.Module):
    """Keeps points for the size of the last input, as heads of detectors do, and counts."""

    shape: Any = None
    points: Any = torch.empty(0)

    def __init__(self, kind: str = "points") -> None:
        super().__init__()
        self.stem, self.head, self.kind = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), kind
        self.calls, self.seen = 0, ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(functional.relu(self.stem(x)))
        self.calls, self.seen = self.calls + 1, (*self.seen, x.shape[0])
        if self.kind == "points" and (self.shape is None or self.shape != x.shape[2:]):
            rows = torch.arange(y.shape[2]).type_as(y) + 0.5
            self.points = torch.stack([rows, y.new_full((len(rows),), 2.0)], -1).sum(-1)
            self.shape = x.shape[2:]
        if self.kind == "table":
            self.cache = {"rows": torch.arange(y.shape[2])}
        return y + self.points.view(-1, 1) if self.kind == "points" else y


@pytest.mark.long
@pytest.mark.parametrize("kind", ["points", "table", "none"])
@pytest.mark.parametrize("size", [IMAGES, OTHERS])
def test_a_plan_does_not_depend_on_what_ran_before(kind: str, size: torch.Tensor) -> None:
    torch.manual_seed(0)
    fresh = Anchored(kind).eval()
    used = copy.deepcopy(fresh)
    used(size)
    plan, later = (planc.compile(model, IMAGES, ratio=0.5) for model in (fresh, used))
    assert encode_plan(plan) == encode_plan(later)
    for model in (fresh, used):
        smaller, removed = planc.apply(plan, model, keep_removed=True)
        smaller(size)
        planc.mask(plan, model)
        planc.verify(plan, fresh, smaller, IMAGES)
        planc.verify(plan, used, planc.apply(plan, fresh), IMAGES)
        planc.restore(plan, smaller, removed)
        with pytest.raises(AlreadyApplied):
            planc.apply(plan, smaller)
        with tempfile.TemporaryDirectory() as folder:
            planc.save(path := Path(folder) / "a.safetensors", smaller, plan)
            for other in (fresh, used):
                planc.load(path, other)
            planc.load(path, planc.apply(plan, fresh), mode="verify")


@pytest.mark.parametrize("kind", ["points", "table", "none"])
def test_steps_go_on_where_models_run_in_between(kind: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = Anchored(kind).eval()
    original, done, count = copy.deepcopy(model), None, 0
    schedule = planc.Schedule(macs=0.5, steps=2)
    while step := planc.next_step(schedule, model, IMAGES, done):
        model, done, count = planc.apply(step.plan, model), step.total, count + 1
        model(OTHERS)
    assert count == 2
    assert done is not None
    planc.verify(done, original, model, IMAGES)


class Numbered(nn.Module):
    """Computes a constant of a width in a way that is not seen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import numpy as np

        return x * torch.full((1,), float(np.sqrt(np.int64(x.shape[-1])))).view(1)


def test_a_constant_that_a_width_went_into_unseen_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), Numbered(), nn.Linear(8, 2)).eval()
    plan = planc.compile(model, torch.zeros(3, 4), ratio=0.5)
    if not plan.cuts:  # seen after all: nothing is cut
        return
    with pytest.raises(VerificationError, match="computes with"):
        planc.apply(plan, model)


class Written(nn.Module):
    """Writes what it computed into zeros, and views of these."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros, steps = torch.zeros(3, 4), torch.arange(4).float().exp()
        before = zeros.view(12)
        zeros.copy_(self.up(x))
        return before.sigmoid() + steps.repeat(3)


def test_constants_that_results_are_written_into_are_none() -> None:
    graph = planc.trace(Written().eval(), torch.zeros(3, 4))
    names = [node.op.split(".")[1] for node in graph.lasting]
    assert names == ["linear", "copy_", "sigmoid", "add"]
    assert shapes_digest(graph) != shapes_digest(graph, graph.nodes)


# -- plans of older versions ----------------------------------------------------------------------


def older(plan: Plan, model: nn.Module, call: torch.Tensor) -> Plan:
    """The plan as version 0.1.0 of planc wrote it: all attributes, no classes, all operators."""
    graph = planc.trace(model, call)
    modules = tuple(
        ModuleSpec(path, tuple(sorted(module.attributes.items())))
        for path, module in graph.modules.items()
    )
    after = modules_after(modules, plan.attributes)
    smaller = planc.trace(planc.apply(plan, model), call)
    return plan.replace(
        modules=modules,
        source=replace(plan.source, attributes=attributes_digest(modules)),
        result=replace(plan.result, attributes=attributes_digest(after)),
        shapes=shapes_digest(smaller, smaller.nodes),
    )


def test_a_plan_of_an_older_version_is_held_to_what_counts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fresh = Anchored().eval()
    plan = planc.compile(fresh, IMAGES, ratio=0.5)
    old, used = older(plan, fresh, IMAGES), copy.deepcopy(fresh)
    assert ("calls", 0) in old.modules[0].attributes
    used(OTHERS)
    smaller, removed = planc.apply(old, used, keep_removed=True)
    smaller(OTHERS)
    for model in (fresh, used):
        planc.verify(old, model, smaller, IMAGES)
        with pytest.raises(StalePlan, match="expected in_channels = 8, found 9"):
            planc.apply(old, with_attribute(model, "head", "in_channels", 9))
    planc.restore(old, smaller, removed)
    planc.save(tmp_path / "a.safetensors", smaller, old)
    for model in (fresh, used):
        planc.load(tmp_path / "a.safetensors", model)
    planc.load(tmp_path / "a.safetensors", planc.apply(plan, fresh), mode="verify")
    with pytest.raises(StalePlan, match="expected out_channels = 4, found 5"):
        planc.restore(old, with_attribute(smaller, "head", "out_channels", 5), removed)
    with pytest.raises(AlreadyApplied):
        planc.apply(old, smaller)
    assert planc.diff(old, plan).same_source
    second = planc.compile(smaller, IMAGES, ratio=0.5)
    total = planc.compose(old, second)
    planc.verify(total, used, planc.apply(total, used), IMAGES)


def with_attribute(model: nn.Module, path: str, name: str, value: Any) -> nn.Module:
    other = copy.deepcopy(model)
    vars(other.get_submodule(path))[name] = value
    return other


def test_an_older_plan_for_a_model_that_does_not_run_is_refused() -> None:
    model = Anchored().eval()
    old = older(planc.compile(model, IMAGES, ratio=0.5), model, IMAGES)
    other: Any = with_attribute(model, "", "calls", 5)
    other.forward = len
    with pytest.raises(StalePlan, match="expected calls = 0, found 5"):
        planc.apply(old, other)


@pytest.mark.long
def test_composed_plans_list_what_each_part_depends_on() -> None:
    torch.manual_seed(0)
    model = Listed().eval()
    first = planc.compile(model, torch.zeros(3, 4), ratio=0.5)
    second = planc.compile(planc.apply(first, model), torch.zeros(3, 4), ratio=0.5)
    more = (ModuleSpec("", (("calls", 0), *second.modules[0].attributes)), *second.modules[1:])
    changes = (AttributeChange("", "calls", 0, 1), *second.attributes)
    second = second.replace(modules=more, attributes=changes)
    composed = planc.compose(first, second)
    assert table_of(composed)[""] == {CLASS: "Listed", "heads": 2, "calls": 0}
    assert composed.source.attributes == attributes_digest(composed.modules)
    assert composed.result.attributes == attributes_digest(
        modules_after(composed.modules, composed.attributes)
    )


def test_tables_are_those_of_the_graph() -> None:
    graph = planc.trace(Listed().eval(), torch.zeros(3, 4))
    plain, more = module_table(graph, ()), module_table(graph, [("", "calls"), ("", "none")])
    assert dict(plain[0].attributes) == {CLASS: "Listed", "heads": 2}
    assert dict(more[0].attributes) == {CLASS: "Listed", "heads": 2, "calls": 0}
    assert plain[1:] == more[1:]


# -- the law --------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": lambda width: nn.Identity(),
}


class Part(nn.Module):
    """A layer with what a run of it leaves behind."""

    def __init__(self, inner: int, outer: int, act: str, norm: str, leaves: str) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(inner, outer), ACTIVATIONS[act]()
        self.norm, self.halves, self.leaves = NORMS[norm](outer), 2, leaves
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.act(self.layer(x)))
        y = y.view(y.shape[0], self.halves, y.shape[1] // self.halves).flatten(1)
        match self.leaves:
            case "counter":
                self.count += 1
            case "size":
                self.last = x.shape
            case "flag":
                self.ready = True
            case "cache":
                self.cache = {tuple(x.shape): x}
        return y


@dataclass(frozen=True)
class Drawn:
    """A drawn model: the width, activation and norm of each part, and what runs leave on them."""

    parts: tuple[tuple[int, str, str, str], ...]

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        widths = [4, *(part[0] for part in self.parts)]
        parts = [Part(inner, *part) for inner, part in zip(widths[:-1], self.parts, strict=True)]
        return nn.Sequential(*parts, nn.Linear(widths[-1], 3)).eval()


LEAVES = ["counter", "size", "flag", "cache", "nothing"]
DRAWN = st.lists(
    st.tuples(
        st.sampled_from([4, 6, 8]),
        st.sampled_from(sorted(ACTIVATIONS)),
        st.sampled_from(sorted(NORMS)),
        st.sampled_from(LEAVES),
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: Drawn(tuple(parts)))
X, Y = torch.linspace(-1, 1, 8).view(2, 4), torch.linspace(-1, 1, 12).view(3, 4)


@st.composite
def otherwise(draw: st.DrawFn, drawn: Drawn) -> Drawn:
    """The drawn model with another width, depth, activation or norm."""
    parts, at = list(drawn.parts), draw(st.integers(0, len(drawn.parts) - 1))
    width, act, norm, leaves = parts[at]
    match draw(st.sampled_from(["width", "deeper", "shallower", "class", "norm"])):
        case "width":
            parts[at] = (width + 2, act, norm, leaves)
        case "shallower" if len(parts) > 1:
            del parts[at]
        case "class":
            others = [name for name in sorted(ACTIVATIONS) if name != act]
            parts[at] = (width, draw(st.sampled_from(others)), norm, leaves)
        case "norm":
            others = [name for name in sorted(NORMS) if name != norm]
            parts[at] = (width, act, draw(st.sampled_from(others)), leaves)
        case _:
            parts.insert(at, parts[at])
    return Drawn(tuple(parts))


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_another_width_depth_or_class_is_refused_and_named(data: Any) -> None:
    drawn = data.draw(DRAWN)
    model, other = drawn.build(), data.draw(otherwise(drawn)).build()
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    if data.draw(st.booleans()):
        other(Y)
    for call in (
        lambda: planc.apply(plan, other),
        lambda: planc.apply(plan, other, validate=False),
        lambda: planc.mask(plan, other),
        lambda: planc.verify(plan, other, smaller, X),
    ):
        with pytest.raises(StalePlan, match=r"structure: .*: expected .*, found ") as caught:
            call()
        assert not isinstance(caught.value, AlreadyApplied)
    with pytest.raises(VerificationError):
        planc.verify(plan, model, other, X)


def leave(data: Any, model: nn.Module) -> None:
    """Runs, or what code beside the model leaves on it."""
    for _ in range(data.draw(st.integers(0, 2))):
        with torch.no_grad():
            model(Y)
    module = data.draw(st.sampled_from(list(model.modules())))
    value = data.draw(
        st.one_of(
            st.integers(-3, 3),
            st.booleans(),
            st.text(max_size=4),
            st.floats(-1, 1),
            st.lists(st.integers(0, 4), max_size=3).map(tuple),
            st.just({"a": 1}),
            st.builds(object),
            st.builds(Drawn, st.just(())),
        )
    )
    vars(module)[data.draw(st.sampled_from(["left", "_left", "name_or_path", "step"]))] = value


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_runs_leave_is_never_refused(data: Any) -> None:
    drawn = data.draw(DRAWN)
    model, other = drawn.build(), drawn.build()
    leave(data, model)
    plan = planc.compile(model, X, ratio=0.5)
    assert encode_plan(plan) == encode_plan(planc.compile(drawn.build(), X, ratio=0.5))
    leave(data, other)
    smaller, removed = planc.apply(plan, other, keep_removed=True)
    leave(data, smaller)
    planc.mask(plan, other)
    planc.verify(plan, model, smaller, X, other_sizes=False)
    planc.restore(plan, smaller, removed)
    with tempfile.TemporaryDirectory() as folder:
        planc.save(path := Path(folder) / "a.safetensors", smaller, plan)
        planc.load(path, drawn.build())
        planc.load(path, planc.apply(plan, model), mode="verify")
    second = planc.compile(smaller, X, ratio=0.5)
    total = planc.compose(plan, second)
    planc.apply(total, model)
