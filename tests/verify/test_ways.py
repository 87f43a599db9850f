"""The ways that verification takes: random and mixing models, decisions by values, configurations,
masks, inputs of other sizes; and what it says where it cannot compare.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import planc
from planc.apply.replay import replay_pruned
from planc.apply.validate import Call, deciding_alike
from planc.errors import VerificationError
from planc.ir.construction import Tables
from planc.modules.construction import tables
from planc.verify import Report, sizes
from planc.verify.configuration import check_configuration
from planc.verify.outputs import run
from planc.verify.sizes import other_calls, sizes_of
from planc.verify.structure import as_planned, check_plan
from tests.support.proving import randomise


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


X = drawn(6, 4)


def checks_of(model: nn.Module, x: Any, plan: planc.Plan | None = None, **options: Any) -> str:
    plan = plan or planc.compile(model, x, ratio=0.5)
    return str(planc.verify(plan, model, planc.apply(plan, model, args=x), x, **options))


# -- decisions by values --------------------------------------------------------------------------


class Threshold(nn.Module):
    """One of two layers, by how large the values are."""

    def __init__(self, limit: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(6, 2)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.large, self.little = nn.Linear(8, 6), nn.Linear(8, 6)
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.first(x)))
        x = self.large(x) if x.abs().sum() > self.limit else self.little(x)
        y: torch.Tensor = self.last(torch.relu(x))
        return y


def threshold(**options: Any) -> Threshold:
    model = Threshold(**options)
    randomise(model, seed=0)
    return model.eval()


def test_a_model_that_decides_by_values_is_compared_under_both_decisions() -> None:
    said = checks_of(threshold(), X)
    assert "outputs equal the rewritten graph's where both decide as the original" in said
    assert "the values behind 1 decisions" in said
    assert "so do they equal the masked original's" in said
    assert "the same where both decide as the masked original" in said
    assert "2 tensors were not reached and stay whole (little.weight, little.bias)" in said


def test_where_removing_is_not_zeroing_the_masked_original_is_not_compared() -> None:
    said = checks_of(threshold(norm=True), X)
    assert "not compared with the masked original: 1 pruned groups mix" in said
    assert "so do they equal" not in said


class Mirrored(nn.Module):
    """Adds features to their mirror images where the values are little."""

    def __init__(self, limit: float = 0.0) -> None:
        super().__init__()
        self.first, self.last, self.limit = nn.Linear(4, 8), nn.Linear(8, 2), limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y: torch.Tensor = self.last(x if x.sum() > self.limit else x + x.flip(1))
        return y


def test_a_masked_original_that_takes_another_way_is_not_followed() -> None:
    model = Mirrored().eval()
    randomise(model, seed=0)
    plan = planc.compile(model, X, ratio=0.5)
    with torch.no_grad():
        whole = torch.relu(model.first(X)).sum()
        left = torch.relu(planc.mask(plan, model).first(X)).sum()
    assert left < whole
    model.limit = float(whole + left) / 2
    said = checks_of(model, X)
    assert "so do they equal the masked original's" in said
    assert said.endswith(
        "not compared where both decide as the masked original: it takes another way"
    )


def test_a_run_that_does_not_decide_as_the_original_is_refused() -> None:
    model = threshold()
    plan = planc.compile(model, X, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, X))
    gone = analysis.gone([group.removed for group in plan.groups])
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(VerificationError, match="the pruned model does not run as the original: "):
        run(nn.Linear(4, 2), ((X,), {}), replay=replay_pruned(analysis, gone))
    assert torch.backends.mha.get_fastpath_enabled() == fast_path


class Undecided(Threshold):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(torch.relu(self.large(torch.relu(self.first(x)))))
        return y


def test_a_result_that_decides_nothing_where_the_original_decides_is_refused() -> None:
    model = threshold()
    plan = planc.compile(model, X, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, X))
    smaller = planc.apply(plan, model)
    assert deciding_alike(plan, analysis, smaller, ((X,), {})).data_dependent
    smaller.__class__ = Undecided
    with pytest.raises(
        VerificationError, match="does not run: the run ended before it decided what the other did"
    ):
        deciding_alike(plan, analysis, smaller, ((X,), {}))


def test_a_plan_of_a_model_that_decides_holds_for_inputs_of_other_shapes() -> None:
    model = threshold()
    plan = planc.compile(model, X, ratio=0.5)
    few = planc.analyze(planc.trace(model, X[:2]))
    assert as_planned(plan, model, few) is few
    assert (
        check_plan(plan, few)
        == f"the plan's {len(plan.groups)} groups are those of a fresh analysis"
    )
    with pytest.raises(VerificationError, match="the plan's cost_after differ from what its"):
        check_plan(plan.replace(cost_after=replace(plan.cost_after, params=1)), few)


# -- configurations -------------------------------------------------------------------------------


class Configured:
    """Stands for how a library makes a model of its configuration."""

    path = ""

    def __init__(self, anew: nn.Module | None, differs: str = "") -> None:
        self.anew, self.differs = anew, differs

    def model(self, changes: dict[str, Any]) -> nn.Module | None:
        assert changes == {}
        return self.anew

    def built(self, changes: dict[str, Any]) -> Tables | None:
        return None if self.anew is None else tables(self.anew)

    def failure(self, changes: dict[str, Any]) -> str:
        return "no such width"

    def content_differs(self, *_: Any) -> str:
        return self.differs


class Twice(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Fails(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("an odd number")


class Halved(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / (2 if self.training else 1)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Configured(Fails(4, 2)), "does not describe the pruned model: an odd number"),
        (Configured(Halved(4, 2).train()), "it gives the same outputs: 0.0e+00"),
        (Configured(nn.Linear(4, 2, device="meta")), "it gives the same outputs: 0.0e+00"),
        (Configured(nn.Linear(4, 3), "a field"), "bias would be of shape (3,), it is (2,)"),
        (
            Configured(None),
            "does not describe the pruned model: the class makes no model from it: no such width",
        ),
        (Configured(nn.Linear(4, 3)), "bias would be of shape (3,), it is (2,)"),
        (Configured(nn.Linear(4, 2), "a field"), "does not describe the pruned model: a field"),
        (Configured(Twice(4, 2)), "output 0 differs from that of the pruned model by 1.00e+00"),
        (
            Configured(nn.Linear(4, 2)),
            "made anew from its configuration, it gives the same outputs",
        ),
    ],
)
def test_a_configuration_describes_a_model_if_its_class_makes_the_same_of_it(
    made: Any, words: str
) -> None:
    assert words in check_configuration(made, nn.Linear(4, 2).eval(), ((X,), {}), 1e-6)


# -- masks ----------------------------------------------------------------------------------------


def test_what_a_hook_computed_must_be_up_to_date_where_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    prune.random_unstructured(model[0], "weight", 0.25)
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, X)
    smaller[0].weight = smaller[0].weight + 1
    with pytest.raises(
        VerificationError,
        match=r"0\.weight is not .*weight_orig with its mask; apply the plan again",
    ):
        planc.verify(plan, model, smaller, X)
    model[0].weight = model[0].weight + 1  # stale before, it may be stale now
    planc.verify(plan, model, smaller, X)


# -- other sizes ----------------------------------------------------------------------------------


def other_call(model: nn.Module, call: Call) -> Call | None:
    """The first of the other calls, the one with smaller sizes."""
    return next((other for other, _ in other_calls(model, call)), None)


def test_what_has_no_second_size_is_not_resized() -> None:
    assert other_call(nn.ReLU(), ((torch.zeros(3),), {})) is None
    assert other_call(nn.ReLU(), ((), {})) is None
    found = other_call(nn.Linear(2, 2), ((torch.zeros(5, 2),), {}))
    assert found is not None
    assert sizes_of(found) == "1x2"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 3), "2x2"), ((4, 8), "1x6"), ((2, 7), "1x6"), ((1, 2), "2x2"), ((3, 3), "1x2")],
)
def test_sizes_shrink_and_a_single_example_is_doubled(
    shape: tuple[int, ...], expected: str
) -> None:
    found = other_call(nn.ReLU(), ((drawn(*shape),), {"inplace": False}))
    assert found is None
    found = other_call(nn.ReLU(), ((drawn(*shape),), {}))
    assert found is not None
    assert sizes_of(found) == expected
    ((tensor,), _) = found
    rows = min(shape[0], tensor.shape[0])
    assert torch.equal(tensor[:rows], drawn(*shape)[:rows, : tensor.shape[1]])
    assert tensor.is_contiguous()
    if shape[0] == 1:
        assert not torch.equal(tensor[0], tensor[1])


def test_the_batch_is_that_of_the_first_tensor() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, by: float = 1.0) -> torch.Tensor:
            return x.sum() + y.sum() * by

    found = other_call(Sum(), ((drawn(5, 2), drawn(4, 2)), {"by": 2.0}))
    assert found is not None
    assert sizes_of(found) == "1x2, 4x2"
    assert found[1] == {"by": 2.0}
    found = other_call(Sum(), ((drawn(5), drawn(4, 2)), {}))
    assert found is not None
    assert sizes_of(found) == "5, 1x2"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 3), "1x4"), ((4, 8), "4x10"), ((2, 7), "2x8"), ((1, 2), "1x3"), ((3, 1), "3x2")],
)
def test_sizes_grow_by_a_quarter_and_the_batch_does_not(
    shape: tuple[int, ...], expected: str
) -> None:
    larger, _ = list(other_calls(nn.ReLU(), ((drawn(*shape),), {})))[-1]
    assert sizes_of(larger) == expected
    ((tensor,), _) = larger
    assert torch.equal(tensor[:, : shape[1]], drawn(*shape))


def test_one_size_grows_where_the_model_does_not_take_all_of_them() -> None:
    class Narrow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] > 8 and x.shape[2] > 5:
                raise ValueError
            return x * 2

    found = other_calls(Narrow(), ((drawn(2, 8, 5),), {}))
    assert [sizes_of(call) for call, _ in found] == ["1x6x4", "2x10x5"]


def test_sizes_with_a_limit_only_shrink() -> None:
    class Limited(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(8)[: x.shape[1]]

    found = other_calls(Limited(), ((drawn(2, 8),), {}))
    assert [sizes_of(call) for call, _ in found] == ["1x6"]


def test_whether_a_model_takes_a_size_is_asked_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Shaped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, 3)

    level = logging.getLogger("torch._subclasses.fake_tensor").level
    assert sizes._runs(Shaped(), ((drawn(2, 3),), {})) is True
    assert sizes._runs(Shaped(), ((drawn(2, 4),), {})) is False
    assert not caplog.records
    assert logging.getLogger("torch._subclasses.fake_tensor").level == level
    assert sizes._runs(threshold(), ((X,), {})) is False


def test_a_second_example_is_the_first_reversed_in_its_last_dimension() -> None:
    images = drawn(1, 2, 3)
    found = other_call(nn.ReLU(), ((images,), {}))
    assert found is not None
    ((tensor,), _) = found
    assert torch.equal(tensor, torch.cat([images, images.flip(2)])[:, :, :2])


def test_sizes_are_written_each_once() -> None:
    call = (
        (torch.zeros(2, 3), torch.zeros(()), 5),
        {"a": torch.zeros(2, 3), "b": [torch.zeros(4)]},
    )
    assert sizes_of(call) == "2x3, scalar, 4"


class Lookup(nn.Module):
    """Rows of a table that only some lengths lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(3, 4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.relu(self.up(self.table(10 - x.sum(1)))))
        return y


def test_values_that_the_original_does_not_take_are_not_compared() -> None:
    model = Lookup().eval()
    said = checks_of(model, torch.ones(2, 8, dtype=torch.int64))
    left, made = said.splitlines()[-2:]
    told = "not compared with inputs of 1x6: the original does not take their values"
    assert left == f"\N{EN DASH} {told}"
    assert made.startswith("\N{CHECK MARK} outputs equal")


def test_nothing_else_is_compared_on_request() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    assert "with inputs of 1x4, too" in checks_of(model, X)
    assert "with inputs of" not in checks_of(model, X, other_sizes=False)


def test_a_report_reads_as_its_checks() -> None:
    report = Report(("a", "b"), None, 0.0, (), not_shown=("b",))
    assert str(report) == "\N{CHECK MARK} a\n\N{EN DASH} b"
