"""Plans for a module obey what its code computes by itself, and give up as little as that takes."""

from __future__ import annotations

import itertools

import pytest
import torch

import planc
from planc.compile.select import write_plan
from planc.criteria import Magnitude
from planc.errors import PolicyError
from planc.plan.plan import Plan
from planc.policy import Uniform, feasible
from tests.support.small import build


def kept(plan: Plan, prefix: str, kind: str) -> list[int]:
    return [g.kept for g in plan.groups if g.name.startswith(prefix) and g.kind == kind]


@pytest.mark.long
@pytest.mark.parametrize("ratio", [0.2, 0.25, 0.5, 0.7, 0.75, 0.9])
@pytest.mark.parametrize("heads", [0.0, 0.5])
def test_heads_times_their_size_is_the_width_of_the_stream(ratio: float, heads: float) -> None:
    model, inputs = build("vit")
    plan = planc.compile(model, inputs, ratio=ratio, kinds={"heads": heads})
    (stream,) = kept(plan, "", "channels")
    (number,) = kept(plan, "encoder", "heads")
    for cells in kept(plan, "encoder", "head_dim"):
        assert cells // 2 * number == stream  # cells of both rows are counted
    smaller = planc.apply(plan, model)
    attention = smaller.get_submodule("encoder.layers.encoder_layer_0.self_attention")
    assert (attention.embed_dim, attention.num_heads) == (stream, number)
    planc.verify(plan, model, smaller, inputs)


@pytest.mark.long
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("heads", [0.0, 0.5])
def test_each_stage_of_swin_obeys_its_own_width(ratio: float, heads: float) -> None:
    model, inputs = build("swin")
    plan = planc.compile(model, inputs, ratio=ratio, kinds={"heads": heads})
    streams = kept(plan, "", "channels") + kept(plan, "features.2", "features")
    for stage, stream in zip(("features.1", "features.3"), streams, strict=True):
        (number,) = kept(plan, stage, "heads")
        rows = {"features.1": 2, "features.3": 4}[stage]
        for cells in kept(plan, stage, "head_dim"):
            assert cells // rows * number == stream
    planc.verify(plan, model, planc.apply(plan, model), inputs)


def test_the_graph_is_not_bound() -> None:
    model, inputs = build("vit")
    plan = planc.compile(model, inputs, ratio=0, kinds={"heads": 0.5}, target="graph")
    assert kept(plan, "", "channels") == [8]
    assert kept(plan, "encoder", "heads") == [1]
    planc.verify(plan, model, planc.apply(plan, model), inputs)
    whole = planc.compile(model, inputs, ratio=0, kinds={"heads": 0.5})
    assert not any(group.removed for group in whole.groups)


@pytest.mark.long
@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.5, 0.75])
def test_the_halves_of_a_shuffled_stream_stay_equal(ratio: float) -> None:
    model, inputs = build("shuffle")
    for options in ({}, {"criterion": "l1"}, {"criterion": "random"}):
        plan = planc.compile(model, inputs, ratio=ratio, **options)  # type: ignore[arg-type]
        smaller = planc.apply(plan, model)
        stream = smaller.head.in_features
        assert stream % 2 == 0
        assert (stream < 8) == (ratio >= 0.5)  # halves of two units lose none to a quarter
        assert smaller.get_submodule("blocks.1.branch2.0").in_channels == stream // 2
        planc.verify(plan, model, smaller, inputs)


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("name", ["vit", "shuffle"])
def test_no_feasible_plan_is_nearer_to_the_request(name: str, target: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    scores = planc.score(analysis, model, Magnitude(2))
    equations = analysis.equations(target)
    bound = sorted(set().union(*(c.groups for c in equations.constraints)))
    rowed = analysis.grouping.rowed
    for ratio in (0.25, 0.5, 0.75):
        wanted = Uniform(ratio)(analysis, scores)
        counts = feasible(analysis, equations, wanted)
        assert all(count >= least for count, least in zip(counts, wanted, strict=True))
        assert all(c.holds(lambda v: counts[v]) for c in equations.constraints)  # type: ignore[index]  # noqa: B023
        assert [counts[g] for g in rowed] == [wanted[g] for g in rowed]
        cells = [group.cells for group in analysis.groups]
        best = min(
            sum(n / cells[g] for g, n in zip(bound, tried, strict=True))
            for tried in itertools.product(*(range(wanted[g], cells[g] + 1) for g in bound))
            for these in [{**dict(enumerate(counts)), **dict(zip(bound, tried, strict=True))}]
            if all(these[g] == wanted[g] for g in rowed)
            and all(c.holds(these.__getitem__) for c in equations.constraints)  # type: ignore[arg-type]
        )
        assert sum(counts[g] / cells[g] for g in bound) == pytest.approx(best)


@pytest.mark.long
def test_products_of_quotients_do_not_keep_groups_whole() -> None:
    from torchvision.models import SwinTransformer
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    torch.manual_seed(0)  # this block cuts a bias in three by a size: 2 * (size // 3)
    model = SwinTransformer(
        patch_size=[2, 2], embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=[2, 2],
        num_classes=3, stochastic_depth_prob=0.0, block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    ).eval()  # fmt: skip
    images = torch.randn(1, 3, 16, 16)
    for ratio in (0.5, 0.6, 0.9):
        plan = planc.compile(model, images, ratio=ratio)
        for stage in ("features.1", "features.3"):
            cells = [g for g in plan.groups if g.name.startswith(stage) and g.kind == "head_dim"]
            assert cells
            assert all(group.removed for group in cells)
        planc.verify(plan, model, planc.apply(plan, model), images)


def test_a_plan_that_breaks_a_constraint_cannot_be_written() -> None:
    model, inputs = build("vit")
    analysis = planc.analyze(planc.trace(model, inputs))
    removed = [()] * len(analysis.groups)
    stream = next(g for g, group in enumerate(analysis.groups) if group.kind == "channels")
    removed[stream] = (0, 1)  # type: ignore[call-overload]
    with pytest.raises(PolicyError, match=r"must equal"):
        write_plan(analysis, tuple(removed), "module", "by hand", "by hand")
    write_plan(analysis, tuple(removed), "graph", "by hand", "by hand")


def test_plans_with_uneven_or_empty_rows_cannot_be_written() -> None:
    model, inputs = build("attention")
    analysis = planc.analyze(planc.trace(model, inputs))
    g = next(g for g, group in enumerate(analysis.groups) if group.kind == "head_dim")
    for units in ((0,), tuple(range(12)), (0, 1, 2)):
        removed = [()] * len(analysis.groups)
        removed[g] = units  # type: ignore[call-overload]
        with pytest.raises(PolicyError, match="equally many, and at least one, must stay in each"):
            write_plan(analysis, tuple(removed), "graph", "by hand", "by hand")
