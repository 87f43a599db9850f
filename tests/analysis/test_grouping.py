"""Groups of well-known models, as golden texts (``pytest --regenerate`` writes them anew); their
widths; and that they are the same every time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformer

import planc
from planc.analysis import Analysis
from planc.analysis.grouping import PINNED
from planc.files.formats import decode_plan, encode_plan
from planc.ir.groups import apart
from planc.policy import feasible
from planc.rules.labels import Labelled, dense
from tests.programs import write
from tests.support.proving import Net, prunable

GOLDEN = Path(__file__).parents[1] / "golden" / "groups"
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (models.resnet18, 64),
    "vit": (lambda: models.VisionTransformer(32, 16, 1, 4, 32, 48, num_classes=10), 32),
    "swin": (lambda: SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10), 64),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, 64),
    "resnext": (lambda: ResNet(Bottleneck, [1, 1, 1, 1], 10, groups=4, width_per_group=8), 64),
    "densenet": (lambda: DenseNet(8, (2, 2), 16, 2, 0, 10), 64),
}


@cache
def analysed(name: str) -> Analysis:
    make, size = MODELS[name]
    with torch.device("meta"):
        model = make().eval()
        images = torch.empty(1, 3, size, size)
    return planc.analyze(planc.trace(model, images))


def described(analysis: Analysis) -> str:
    """Groups with their members, attributes and constraints of the module, pins."""

    def name(variable: object) -> str:
        assert isinstance(variable, int)
        return f"[{analysis.groups[variable].name}]"

    lines: list[str] = []
    for g, group in enumerate(analysis.groups):
        of_module = apart(analysis.grouping.module_mixing.get(g, ""))
        mixing = "; ".join([*apart(group.mixing), *(f"module: {reason}" for reason in of_module)])
        lines.append(str(group) + (f", mixing: {mixing}" if mixing else ""))
        dims: dict[str, None] = {}
        for member in group.members:
            ragged = f" over {member.over.dim}" if member.over else ""
            dims[f"  {member.tensor}:{member.dim}{ragged}"] = None
        lines += dims
    equations = analysis.equations("module")
    for (module, attribute, index), poly in equations.attributes.items():
        if poly.constant is not None:
            continue  # it stays
        where = ".".join(filter(None, (module, attribute))) + "".join(f"[{i}]" for i in index)
        lines.append(f"attribute {where} = {poly.text(name)}")
    for c in equations.constraints:
        lines.append(f"constraint {c.left.text(name)} = {c.right.text(name)}: {c.reason}")
    lines += [f"whole {analysis.groups[g].name}: {why}" for g, why in equations.whole.items()]
    lines += [f"pinned {pin}" for pin in analysis.pins]
    text = "\n".join(lines) + "\n"
    return re.sub(r"\((?:[^()\s]*" + re.escape(os.sep) + r")?([\w.]+\.py):\d+\)", r"(\1)", text)


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_those_of_the_golden_text(name: str, regenerate: bool) -> None:
    text, path = described(analysed(name)), GOLDEN / f"{name}.txt"
    if regenerate:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"if the change is right: pytest --regenerate {__file__}"


@pytest.mark.parametrize("name", ["vit", "resnext"])
def test_grouping_is_deterministic(name: str) -> None:
    first = described(analysed(name))
    analysed.cache_clear()
    assert described(analysed(name)) == first


def test_names_are_those_of_first_members() -> None:
    for name in MODELS:
        groups = analysed(name).groups
        assert len({group.name for group in groups}) == len(groups)
        for group in groups:
            first = group.members[0]
            assert group.name.startswith(f"{first.tensor}:{first.dim}")


def test_every_unit_is_in_every_group_once() -> None:
    for name in MODELS:
        for group in analysed(name).groups:
            units = np.concatenate([member.expand()[0] for member in group.members])
            assert set(units.tolist()) == set(range(group.size))
            assert group.size % group.rows == 0


def test_heads_of_a_transformer_have_cells_inside() -> None:
    found = analysed("vit")
    kinds = {group.name: group.kind for group in found.groups}
    assert sorted(kinds.values()) == ["channels", "features", "head_dim", "head_dim", "heads"]
    rowed = [found.groups[g].kind for g in found.grouping.rowed]
    assert rowed == ["heads"]


def kept(analysis: Analysis, seed: int) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Random counts that the graph can run with, and random units to remove."""
    rng = np.random.default_rng(seed)
    wanted = tuple(int(rng.integers(1, group.cells + 1)) for group in analysis.groups)
    counts = feasible(analysis, analysis.equations("graph"), wanted)
    removed = tuple(
        tuple(
            sorted(
                int(u) + row * group.cells
                for row in range(group.rows)
                for u in rng.permutation(group.cells)[: group.cells - n]
            )
        )
        for group, n in zip(analysis.groups, counts, strict=True)
    )
    return counts, removed


def lines_of(x: Labelled, gone: np.ndarray, dim: int) -> set[int]:
    """How many coordinates of a dimension are left, line by line."""
    lost = np.zeros(x.shape, dtype=bool)
    for layer in dense(x).targeting(dim):
        lost |= gone[layer.atoms]
    left = np.moveaxis(~lost, dim, -1).sum(-1)
    return set(left.reshape(-1).tolist())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 10**6))
def test_widths_count_what_is_left(program: int, seed: int) -> None:
    """The polynomial of a width is the number of kept coordinates, in each line of a tensor."""
    written = write(program, length=4)
    graph = planc.trace(written.model(), written.inputs())
    analysis = planc.analyze(graph)
    counts, removed = kept(analysis, seed)
    gone = analysis.gone(removed)
    shapes = analysis.shapes(gone)
    whole = analysis.equations("graph").whole
    for tensor in graph.tensors:
        x = analysis.walked.labels[tensor.value]
        for dim in range(x.rank):
            width = analysis.grouping.width(x, dim).value(lambda g: counts[g])
            assert lines_of(x, gone, dim) == {width}
            assert shapes[tensor.value][dim] == width
    for x, shape in zip(analysis.walked.labels, shapes, strict=True):
        for dim in range(x.rank):
            if x.targeting(dim) and not whole:
                assert lines_of(x, gone, dim) == {shape[dim]}


def test_pinned_atoms_have_no_group() -> None:
    found = analysed("resnet18")
    assert found.grouping.group[0] == PINNED
    assert len(found.grouping.group) == found.walked.facts.next_atom


def test_rows_with_one_unit_each_cannot_be_pruned() -> None:
    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x).view(2, 3, 4, 4, 4).transpose(1, 2).reshape(2, 12, 4, 4)
        return m.b(y)

    net = Net(run, a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(12, 12, 1, groups=3))
    found = planc.analyze(planc.trace(net, torch.randn(2, 3, 4, 4)))
    assert not prunable(found, "graph")


def test_levels_of_rows_that_become_one_lie_in_a_place_once() -> None:
    """Seed 834 of the random models: rows of a weight on two levels are one unit."""
    program = write(834, 6)
    plan = planc.compile(program.model(), program.inputs(), ratio=0.5)
    assert decode_plan(encode_plan(plan)) == plan
