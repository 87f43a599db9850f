"""The weights of a module, of its state dict and of files have one digest, and plans carry it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import planc
from planc import masks
from planc.criteria import Statistics
from planc.errors import PlancWarning
from planc.modules.tables import tensors_of
from planc.modules.weights import HashedReads, digest_of, row_of
from planc.plan.plan import Plan

X = torch.zeros(1, 4)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.second, self.out = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.out.weight = self.second.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.second(self.norm(self.first(x)).relu()).relu())
        return found


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return model.eval()


def tied() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


def weights_of(plan: Plan) -> bytes | None:
    return plan.provenance[0].weights


def quiet(action: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlancWarning)
        action()


@pytest.mark.parametrize("make", [net, tied])
def test_a_module_a_state_dict_and_files_have_one_digest(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    model = make()
    digest = digest_of(tensors_of(model), model)
    assert digest is not None
    state = model.state_dict()
    assert digest_of(tensors_of(model), state) == digest
    state.pop("out.weight", None)  # tied names are stored once
    save_file(state, tmp_path / "w.safetensors")
    with torch.device("meta"):
        empty = make()
    plans = [
        planc.compile(model, X),
        planc.compile(model, X, weights=model.state_dict()),
        planc.compile(empty, X, weights=planc.StoredWeights(tmp_path / "w.safetensors")),
    ]
    assert [weights_of(plan) for plan in plans] == [digest] * 3
    assert [plan.provenance[0].origin for plan in plans] == ["model", "model", "file"]


def test_stored_weights_are_hashed_without_a_second_reading(tmp_path: Path) -> None:
    model = net()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    read: list[str] = []

    class Counted(planc.StoredWeights):
        def _read(self, name: str) -> torch.Tensor:
            read.append(name)
            return super()._read(name)

    def digest(*names: str) -> bytes | None:
        stored = Counted(tmp_path / "w.safetensors")
        read.clear()
        hashed = HashedReads(stored)
        assert (list(hashed), len(hashed)) == (list(stored), len(stored))
        for name in names:
            assert hashed[name].equal(model.state_dict()[name])
        found = hashed.digest(tensors_of(model))
        assert sorted(read) == sorted(name for name, _ in model.named_parameters())
        return found

    assert digest("3.weight") == digest() == digest_of(tensors_of(model), model)


def test_stored_weights_are_applied_to_and_compared_one_by_one(tmp_path: Path) -> None:
    model, plan = net(), planc.compile(net(), X)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    stored = planc.StoredWeights(tmp_path / "w.safetensors")
    quiet(lambda: planc.apply(plan, stored))
    save_file(net(1).state_dict(), tmp_path / "other.safetensors")
    with pytest.warns(PlancWarning, match="apply: the weights differ"):
        planc.apply(plan, planc.StoredWeights(tmp_path / "other.safetensors"))


def test_a_rewritten_graph_is_a_module_although_it_has_a_meta_attribute() -> None:
    graph = planc.apply(planc.compile(net(), X, ratio=0.25, target="graph"), net())
    made = planc.compile(graph, X, target="graph").provenance[0]
    assert made.weights is not None
    assert made.origin == "model"


def test_stored_weights_without_values_have_no_digest(tmp_path: Path) -> None:
    model = net()
    hidden = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    assert HashedReads(hidden).digest(tensors_of(model)) is None


@given(st.integers(0, 5), st.integers(0, 31))
@settings(max_examples=20, deadline=None)
def test_any_flipped_bit_of_a_parameter_changes_the_digest(which: int, bit: int) -> None:
    model = net()
    before = digest_of(tensors_of(model), model)
    parameter = list(model.parameters())[which]
    flat = parameter.data.reshape(-1).view(torch.int32)
    flat[-1] ^= 1 << bit if bit < 31 else -(1 << 31)
    assert digest_of(tensors_of(model), model) != before


def test_immaterial_differences_do_not_change_the_digest() -> None:
    model = net()
    before = digest_of(tensors_of(model), model)
    model.train()
    model(torch.randn(5, 4))  # running statistics
    model[0].weight.requires_grad_(False)
    with torch.no_grad():  # another memory format
        model[3].weight.data = model[3].weight.data.t().contiguous().t()
    assert digest_of(tensors_of(model), model) == before


def test_a_conversion_or_a_missing_parameter_is_noticed() -> None:
    model = net()
    before, tensors = digest_of(tensors_of(model), model), tensors_of(model)
    state = model.state_dict()
    assert digest_of(tensors, {n: t.double() for n, t in state.items()}) not in (before, None)
    assert digest_of(tensors, {**state, "0.weight": "text"}) is None
    del state["0.weight"]
    assert digest_of(tensors, state) is None


def test_tensors_without_plain_values_have_no_row() -> None:
    class Opaque(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *_: object, **__: object) -> object:
            raise NotImplementedError("no such operator")

    for tensor in (
        torch.zeros(2, device="meta"),
        torch.zeros(2).to_sparse(),
        torch.zeros(2).as_subclass(Opaque),
    ):
        assert row_of(tensor) is None
    assert digest_of(tensors_of(net()), net().to("meta")) is None


def test_a_plan_of_a_model_without_values_says_nothing_of_its_weights() -> None:
    plan = planc.compile(net().to("meta"), X, criterion="random")
    assert (weights_of(plan), plan.provenance[0].origin) == (None, "")


def test_equal_models_have_equal_plans_and_others_differ_in_their_digest() -> None:
    first, second = planc.compile(net(), X), planc.compile(net(1), X)
    assert first == planc.compile(net(), X)
    assert weights_of(first) != weights_of(second)


def test_models_under_masks_are_hashed_by_their_stored_values() -> None:
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.5)
    plan = planc.compile(model, X)
    assert weights_of(plan) == digest_of(plan.tensors, model.state_dict())


def test_plans_of_masks_scored_no_weights_so_that_masked_ones_are_no_others() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    found = planc.from_masks(model, X, assume_zero=["*.bias", "1.*"]).plan
    assert (weights_of(found), found.provenance[0].origin) == (None, "")
    quiet(lambda: planc.apply(found, model))


def test_mask_plans_name_their_weights() -> None:
    made = masks.select(net(), masks.PerTensor(0.5)).provenance[0]
    assert made.weights == digest_of(tensors_of(net()), net())
    assert made.origin == "model"
    made = masks.select(net(), masks.PerTensor(0.5), "random").provenance[0]
    assert made.weights is not None


def test_statistics_are_named_where_the_criterion_reads_them() -> None:
    model = net()

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(batch).square().sum()
        return found

    batches = [torch.ones(3, 4), torch.full((3, 4), 2.0)]
    one, two = (planc.calibrate(model, batches[:n], "taylor", loss) for n in (1, 2))
    plans = [planc.compile(model, X, criterion="taylor", statistics=s) for s in (one, one, two)]
    found = [plan.provenance[0].statistics for plan in plans]
    assert found[0] == found[1] == one.digest != found[2]
    assert planc.compile(model, X, statistics=one).provenance[0].statistics is None
    assert Statistics(1, ("inputs",), {"a": torch.zeros(1, device="meta")}).digest is None


# warnings


def test_apply_and_verify_warn_about_other_weights_only() -> None:
    model, plan = net(), planc.compile(net(), X)
    quiet(lambda: planc.apply(plan, model))
    quiet(lambda: planc.apply(plan, model.state_dict()))
    smaller = planc.apply(plan, model)
    quiet(lambda: planc.verify(plan, model, smaller, X))
    other = net(1)
    with pytest.warns(PlancWarning, match="apply: the weights differ") as caught:
        smaller = planc.apply(plan, other)
    assert caught[0].filename == __file__
    with pytest.warns(PlancWarning, match="apply: the weights differ"):
        planc.apply(plan, {f"module.{name}": t for name, t in other.state_dict().items()})
    with pytest.warns(PlancWarning, match="verify: the weights differ") as caught:
        planc.verify(plan, other, smaller, X)
    assert caught[0].filename == __file__


def test_a_state_dict_of_a_wrapper_is_known_by_the_names_inside() -> None:
    model, plan = net(), planc.compile(net(), X)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    quiet(lambda: planc.apply(plan, state))
    quiet(lambda: planc.apply(plan, nn.DataParallel(model)))


def test_a_composed_plan_is_compared_with_the_weights_of_the_original() -> None:
    model, first = net(), planc.compile(net(), X, ratio=0.25)
    smaller = planc.apply(first, model)
    with torch.no_grad():
        smaller[0].weight.mul_(2)
    second = planc.compile(smaller, X, ratio=0.5)
    composed = planc.compose(first, second)
    assert weights_of(composed) == weights_of(first)
    quiet(lambda: planc.apply(composed, model))


# scores


def test_scores_are_written_on_request_and_obeyed_by_nobody() -> None:
    model = net()
    plain, scored = planc.compile(model, X), planc.compile(model, X, scores=True)
    assert all(group.scores is None for group in plain.groups)
    (group,) = [group for group in scored.groups if group.removed]
    scores = group.unit_scores
    assert scores is not None
    kept = [i for i in range(group.size) if i not in group.removed]
    assert scores[list(group.removed)].max() <= scores[kept].min()
    for other, own in zip(scored.groups, plain.groups, strict=True):
        assert (other.removed, len(other.scores or b"")) == (own.removed, 4 * own.size)
    small, same = (planc.apply(plan, model).state_dict() for plan in (plain, scored))
    assert all(small[name].equal(tensor) for name, tensor in same.items())
    planc.verify(scored, model, planc.apply(scored, model), X)


def test_scores_beyond_float32_are_brought_into_its_range() -> None:
    def huge(analysis: planc.analysis.Analysis, weights: object) -> object:
        import numpy as np

        return [np.linspace(-1e300, 1e300, group.size) for group in analysis.groups]

    plan = planc.compile(net(), X, criterion=huge, scores=True)  # type: ignore[arg-type]
    scores = plan.groups[0].unit_scores
    assert scores is not None
    assert scores.max() == torch.finfo(torch.float32).max == -scores.min()
