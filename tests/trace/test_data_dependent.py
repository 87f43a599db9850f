"""Models whose control flow depends on values, proven under the decisions of the original."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import planc
from planc.analysis import Analysis
from planc.errors import PolicyError, StalePlan, VerificationError
from planc.modules.nesting import leaves
from tests.support.proving import prove, randomise


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = normal(6, 4)


class Branch(nn.Module):
    """Takes one of two layers by the sign of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.positive, self.negative = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        x = self.positive(x) if self.last(x).sum() > 0 else self.negative(x)
        return self.last(functional.relu(x))


class Chosen(nn.Module):
    """Goes on with the rows whose score is positive, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.score = nn.Linear(4, 8), nn.Linear(8, 1)
        self.second, self.last = nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = functional.relu(self.first(x))
        rows = torch.nonzero(self.score(x)[:, 0] > 0)[:, 0]
        return {"rows": rows, "out": self.last(functional.relu(self.second(x[rows])))}


class Boxes(nn.Module):
    """A detector of one level: boxes and scores, non-maximum suppression, a head on regions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.corners, self.score = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 1, 1)
        self.head, self.last = nn.Linear(8 * 4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = functional.relu(self.body(x))
        low, size = self.corners(x).permute(0, 2, 3, 1).reshape(-1, 4).split(2, 1)
        boxes = torch.cat([low * 2, low * 2 + size.abs() * 4 + 0.1], dim=1)
        scores = self.score(x).flatten().sigmoid()
        kept = torchvision.ops.nms(boxes, scores, 0.2)[:7]
        regions = torchvision.ops.roi_align(x, [boxes[kept]], 2)
        return boxes[kept], scores[kept], self.last(functional.relu(self.head(regions.flatten(1))))


class Loop(nn.Module):
    """Halves until the norm, a Python number, is small."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.step, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        while float(x.norm()) > 1.0:
            x = (x + 0.1 * self.step(x)) / 4
        return self.last(x)


class Levels(nn.Module):
    """Rows are sent to one of two layers, and what these give is gathered in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.levels = nn.ModuleList([nn.Linear(8, 10), nn.Linear(8, 10)])
        self.last = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        level = (self.last.weight.sum() + x.sum(1) > 4).long()
        result = torch.zeros(len(x), self.last.in_features, dtype=x.dtype)
        for i, layer in enumerate(self.levels):
            rows = torch.where(level == i)[0]
            result[rows] = layer(x[rows])
        return self.last(result)


class Gated(nn.Module):
    """Decides about each channel as well: those decisions shrink with the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x * (x > 0)
        assert float(x.square().sum()) > 0
        return self.last(x.round())


CASES: dict[str, tuple[type[nn.Module], torch.Tensor, set[str]]] = {
    "branch": (Branch, X, {"first.weight:0"}),
    "chosen": (Chosen, X, {"first.weight:0", "second.weight:0"}),
    "boxes": (Boxes, normal(1, 3, 6, 6), {"body.weight:0", "head.weight:0"}),
    "loop": (Loop, X, {"first.weight:0"}),
    "levels": (Levels, X, {"first.weight:0", "levels.0.weight:0"}),
    "gated": (Gated, X, {"first.weight:0"}),
}


def traced(name: str) -> tuple[nn.Module, torch.Tensor, Analysis]:
    kind, x, _ = CASES[name]
    model = kind().eval()
    randomise(model, seed=0)
    return model, x, planc.analyze(planc.trace(model, x))


@pytest.mark.parametrize("name", CASES)
def test_pruned_models_equal_the_masked_original_under_its_decisions(name: str) -> None:
    kind, x, groups = CASES[name]
    analysis = prove(kind(), x, target="module")
    assert analysis.graph.data_dependent
    assert groups <= {group.name for group in analysis.groups}


@pytest.mark.parametrize("name", CASES)
def test_a_graph_of_one_run_is_refused(name: str) -> None:
    model, x, _ = traced(name)
    with pytest.raises(PolicyError, match="control flow of this model depends on the values"):
        planc.compile(model, x, ratio=0.5, target="graph")


@pytest.mark.parametrize("name", ["chosen", "boxes", "gated"])
def test_a_plan_is_verified_on_inputs_that_decide_otherwise(name: str) -> None:
    model, x, _ = traced(name)
    plan = planc.compile(model, x, ratio=0.5)
    smaller = planc.apply(plan, model, args=x)
    for seed in range(1, 4):
        other = normal(*x.shape, seed=seed)
        report = planc.verify(plan, model, smaller, other)
        assert report.error is not None
        assert report.error < 1e-5


def test_a_batch_of_nothing_leaves_the_head_free() -> None:
    kind, x, groups = CASES["chosen"]
    model = kind().eval()
    randomise(model, seed=0)
    with torch.no_grad():
        model.score.weight.zero_()  # type: ignore[union-attr, operator]
        model.score.bias.fill_(-1.0)  # type: ignore[union-attr, operator]
    analysis = planc.analyze(planc.trace(model, x))
    assert groups <= {group.name for group in analysis.groups}
    plan = planc.compile(model, x, ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model), x)


def test_a_layer_that_no_run_reaches_stays_whole_and_says_so() -> None:
    _, _, analysis = traced("branch")
    untouched = [p for p in analysis.pins if p.tensor in ("positive.weight", "negative.weight")]
    assert any("not used by the traced run" in pin.reason for pin in untouched)


def test_inputs_that_take_the_other_branch_make_the_plan_stale() -> None:
    model, x, _ = traced("branch")
    plan = planc.compile(model, x, ratio=0.5)
    smaller = planc.apply(plan, model, args=x)
    taken = planc.trace(model, x).nodes
    other = next(
        y
        for y in (normal(6, 4, seed=seed) * 9 for seed in range(1, 99))
        if [n.module for n in planc.trace(model, y).nodes] != [n.module for n in taken]
    )
    with pytest.raises(StalePlan, match="inputs on which it runs as on those"):
        planc.verify(plan, model, smaller, other)


def test_verification_says_which_tensors_its_run_did_not_reach() -> None:
    model, x, _ = traced("branch")
    plan = planc.compile(model, x, ratio=0.5)
    report = planc.verify(plan, model, planc.apply(plan, model, args=x), x)
    assert any("tensors were not reached" in check for check in report.checks)


class Cheat(Chosen):
    """Scores otherwise once it has been pruned, by a test that no tracer sees."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = functional.relu(self.first(x))
        wrong = int(str(x.shape[1])) != 8
        scores = self.score(x)[:, 0] + (1 if wrong else 0)
        rows = torch.nonzero(scores > 0)[:, 0]
        return {"rows": rows, "out": self.last(functional.relu(self.second(x[rows])))}


def test_values_that_only_decide_are_compared() -> None:
    model = Cheat().eval()
    randomise(model, seed=0)
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model, args=X, validate=False)
    with pytest.raises(VerificationError, match=r"what decides in aten\.gt"):
        planc.verify(plan, model, smaller, X)


class Miscount(Chosen):
    """Views a result by a width that is written down."""

    def forward(self, x: torch.Tensor) -> Any:
        x = functional.relu(self.first(x))
        rows = torch.nonzero(self.score(x)[:, 0] > 0)[:, 0]
        return self.last(functional.relu(self.second(x[rows]).view(-1, 10)))


def test_a_width_that_is_written_down_keeps_its_group_whole() -> None:
    model = Miscount().eval()
    randomise(model, seed=0)
    plan = planc.compile(model, X, ratio=0.5)
    removed = {group.name: len(group.removed) for group in plan.groups}
    assert removed["first.weight:0"] == 4
    assert removed.get("second.weight:0", 0) == 0
    planc.verify(plan, model, planc.apply(plan, model), X)


class Limited(Chosen):
    """Keeps the first rows only, up to a limit that this run does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 50

    def forward(self, x: torch.Tensor) -> Any:
        x = functional.relu(self.first(x))
        rows = torch.nonzero(self.score(x)[:, 0] > 0)[:, 0][: self.limit]
        return self.last(functional.relu(self.second(x[rows])))


def test_a_limit_that_was_not_reached_stays() -> None:
    model = Limited().eval()
    randomise(model, seed=0)
    plan = planc.compile(model, X, ratio=0.5)
    assert not [change for change in plan.attributes if change.name == "limit"]
    planc.verify(plan, model, planc.apply(plan, model), X)


def test_a_wrong_limit_is_found_on_the_way_that_the_masked_model_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Limited().eval()
    randomise(model, seed=3)
    plan = planc.compile(model, X, ratio=0.5)
    rows = [len(net(X)) for net in (model, planc.mask(plan, model))]
    assert rows == [2, 6]
    smaller = planc.apply(plan, model)
    smaller.limit = 2  # type: ignore[assignment]
    monkeypatch.setattr(sys.modules["planc.verify"], "check_modules", lambda *_: "not looked at")
    with pytest.raises(VerificationError, match=r"output 0 has shape \(2, 3\)"):
        planc.verify(plan, model, smaller, X)


def test_recorded_decisions_lead_every_run_to_the_same_rows() -> None:
    model, x, analysis = traced("chosen")
    rows = next(leaves(model(x)))
    (mask,) = (d for d in analysis.graph.decisions if d.results)
    assert torch.equal(mask.results[0].nonzero()[:, 0], rows)


class Remembering(Loop):
    """Decides something in its first run only, and keeps what it has found."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.levels is None:
            self.levels = round(torch.log2(torch.tensor(float(x.shape[0]))).item())
        return super().forward(x) * self.levels


def test_a_model_that_has_run_is_proven_as_one_that_has_not() -> None:
    model = Remembering()
    randomise(model, 0)
    model(X)
    plan = planc.compile(model, X, ratio=0.5)
    result = planc.apply(plan, model, args=X)
    planc.verify(plan, model, result, X)


class Selective(Loop):
    """Keeps what it finds in larger batches."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.levels is None and len(x) > len(X):
            self.levels = len(x)
        return super().forward(x) * (self.levels or 1)


def test_state_of_an_earlier_run_counts_where_this_run_would_leave_none() -> None:
    model = Selective()
    randomise(model, 0)
    model(torch.cat([X, X]))
    plan = planc.compile(model, X, ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model, args=X), X)
    assert model.levels == 2 * len(X)


class Prepared(Remembering):
    """Must be called twice: the first call only prepares it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.levels is None:
            self.levels = 2
            raise RuntimeError("call it again")
        return super().forward(x)


def test_a_model_that_needs_an_earlier_run_is_proven_with_it() -> None:
    model = Prepared()
    randomise(model, 0)
    with pytest.raises(RuntimeError, match="again"):
        model(X)
    plan = planc.compile(model, X, ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model, args=X), X)
