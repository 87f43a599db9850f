"""Claims of answers: a name of any form is explained, pins come first, and kernels are left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.analysis.answers import answers, bound_remedy, groups_named, real_pins, remedy
from planc.errors import AnalysisError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.norm(self.first(x)).relu())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.Sequential(Block(), Block())
        self.head, self.rest = nn.Linear(8, 5), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


def analysed(model: nn.Module, x: torch.Tensor) -> Analysis:
    return planc.analyze(planc.trace(model.eval(), x))


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analysed(Net(), torch.randn(1, 3, 8, 8))


def places(analysis: Analysis, name: str) -> list[str]:
    return [f"{answer.tensor}:{answer.dim}" for answer in answers(analysis, name)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stem.weight:0", ["stem.weight:0"]),
        ("stem.weight:-4", ["stem.weight:0"]),
        ("stem.weight:2", ["stem.weight:2"]),
        ("stem.weight", ["stem.weight:1", "stem.weight:0"]),
        ("stem", ["stem.weight:1", "stem.weight:0"]),
        ("blocks.0", ["blocks.0.first.weight:0", "blocks.0.first.weight:1"]),
        ("blocks.0.norm", ["blocks.0.norm.weight:0"]),
        ("blocks.?.first.weight:0", ["blocks.0.first.weight:0", "blocks.1.first.weight:0"]),
        ("*.norm", ["blocks.0.norm.weight:0", "blocks.1.norm.weight:0"]),
        ("head", ["head.weight:0", "head.bias:0", "head.weight:1"]),
    ],
)
def test_a_name_of_any_form_stands_for_its_groups_and_pins(
    name: str, expected: list[str], found: Analysis
) -> None:
    assert places(found, name) == expected
    for answer in answers(found, name):
        assert answer.reasons == found.explain(answer.tensor, answer.dim)


def test_groups_within_rows_are_named() -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=True)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
            return out

    analysis = analysed(Own(), torch.randn(1, 5, 16))
    for group in analysis.groups:
        [answer] = answers(analysis, group.name)
        assert any(str(group) in line for line in answer.reasons)


def test_pins_come_first_with_the_change_that_frees_them(found: Analysis) -> None:
    first, *others = answers(found, "*")
    assert first.remedy
    assert [bool(answer.remedy) for answer in (first, *others)] == sorted(
        (bool(answer.remedy) for answer in (first, *others)), reverse=True
    )
    pins = [f"{pin.tensor}:{pin.dim}" for pin in real_pins(found)]
    assert pins[:4] == ["rest.weight:0", "rest.weight:1", "rest.bias:0", "stem.weight:1"]
    assert pins[4:] == ["head.weight:0", "head.bias:0"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("an output of the model", "name it in free_outputs (--free-outputs)"),
        (
            "aten.erfinv.default has no rule: aten.erfinv.default in net",
            '@planc.rule("aten.erfinv")',
        ),
        ("own.op.default has no rule: own.op.default", '@planc.rule("own.op")'),
        ("not used by the traced run", "--input"),
        ("chunks of unequal size: aten.chunk.default in net", "a multiple of the parts"),
        ("stored as torch.sparse_coo", "dense"),
        ("another reason", ""),
    ],
)
def test_a_pin_has_the_change_that_frees_it(reason: str, words: str) -> None:
    assert words in remedy(reason)
    assert bool(remedy(reason)) == bool(words)


def test_a_size_written_in_the_code_is_freed_by_the_graph() -> None:
    class Literal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.first(x).view(2, 8))
            return out

    analysis = analysed(Literal(), torch.randn(2, 4))
    [bound] = analysis.bounds("module")
    assert "--target graph" in bound_remedy(analysis, bound)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stem.weihgt", "did you mean stem.weight"),
        ("block", "did you mean"),
        ("layer9.*", "no parameter or buffer, module or group 'layer9.*'"),
        ("stem.weight:x", "write NAME:DIMENSION, as conv1.weight:0"),
        ("stem.weight:9", "there is no dimension 9"),
        ("", "no parameter or buffer, module or group ''"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, words: str, found: Analysis) -> None:
    with pytest.raises(AnalysisError) as refusal:
        answers(found, name)
    assert words in str(refusal.value)


def test_the_groups_of_a_plan_are_named_alike(found: Analysis) -> None:
    for name, sizes in (("stem", 1), ("blocks.*", 3), ("blocks.0.first.weight:0", 1), ("x", 0)):
        assert len(groups_named(found.groups, name)) == sizes
