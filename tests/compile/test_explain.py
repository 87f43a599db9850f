"""``planc.explain`` gives the reasons of a model as text and as plain data."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import planc
from planc.errors import AnalysisError, PlancError


class Body(nn.Module):
    """A shortcut around a convolution, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        result: torch.Tensor = self.head((y + self.block(y)).mean((2, 3)))
        return result


MODEL, IMAGES = Body().eval(), torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize("name", ["stem", "stem.weight:0", "block.0", "block", "block*"])
def test_a_coupling_is_explained_by_any_of_its_names(name: str) -> None:
    found = str(planc.explain(MODEL, IMAGES, name))
    assert "belong to group stem.weight:0 (8 channels)" in found
    assert "block.0.weight:0" in found
    assert "coupled by aten.add.Tensor" in found


def test_a_pin_comes_with_the_change_that_frees_it() -> None:
    (entry, _) = (e for e in planc.explain(MODEL, IMAGES, "head").entries if e["remedy"])
    assert (entry["tensor"], entry["dim"]) == ("head.weight", 0)
    assert "free_outputs" in entry["remedy"]


def test_without_a_name_pins_are_listed_without_those_of_kernels() -> None:
    found = planc.explain(MODEL, IMAGES)
    assert {e["tensor"] for e in found.entries} == {"stem.weight", "head.weight", "head.bias"}
    assert "kernel" not in str(found)
    assert json.loads(json.dumps(found.entries))


def test_an_unknown_name_has_suggestions_and_a_wrong_type_is_named() -> None:
    with pytest.raises(AnalysisError, match=r"'blok'; did you mean block"):
        planc.explain(MODEL, IMAGES, "blok")
    with pytest.raises(PlancError, match="name: expected"):
        planc.explain(MODEL, IMAGES, 3)  # type: ignore[arg-type]


def test_the_model_may_take_keywords_and_is_unchanged() -> None:
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    assert planc.explain(MODEL, name="stem", kwargs={"x": IMAGES}).entries
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())
