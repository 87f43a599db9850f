"""Contents of results: what is compared, and where."""

from __future__ import annotations

import math
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from planc.errors import VerificationError
from planc.verify.contents import Contents, compare_texts, contents
from planc.verify.outputs import differ, difference

MODEL = nn.Linear(2, 2)
ONE, TWO = torch.tensor([1.0, 2.0]), torch.tensor([3.0])


def of(returned: Any) -> Contents:
    return contents(MODEL, returned)


def apart(a: Any, b: Any) -> str:
    with pytest.raises(VerificationError) as refused:
        difference(of(a), of(b), 1e-4, "the other")
    return str(refused.value)


class Colour(Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1], [2], "result[0] is 1, that of the other 2"),
        ([True], [False], "result[0] is True, that of the other False"),
        ({"name": "a"}, {"name": "b"}, "result['name'] is 'a', that of the other 'b'"),
        ([Colour.RED], [Colour.BLUE], "that of the other <Colour.BLUE: 2>"),
        ([torch.float32], [torch.float64], "result[0] is torch.float32, that of the other"),
        ([1, 2], (1, 2), "result is a list, that of the other a tuple"),
        ({"a": 1}, {"b": 1}, "the result has result['a'], that of the other result['b'] in its"),
        ([1], [1, 2], "the result has 2 parts, that of the other 3"),
        ([b"abc"], [b"ab"], "result[0] is 3 bytes, that of the other 2 bytes"),
        ([math.nan], [math.inf], "result[0] is nan, that of the other inf"),
        ([1.0], [math.nan], "1 outputs, the other has 0"),
        ([np.array(["a"])], [np.array([1.0])], "0 outputs, the other has 1"),
        ([ONE], [TWO], "output 0 (result[0]) has shape (2,), the other (1,)"),
        ([1.0], [1.1], "output 0 (result[0]) differs from that of the other by 9.09e-02"),
        ([np.float32(1.0)], [np.float32(1.1)], "output 0 (result[0]) differs"),
        ([np.arange(3)], [np.arange(3) + 1], "output 0 (result[0]) differs"),
        (SimpleNamespace(y=ONE), SimpleNamespace(y=ONE + 1), "output 0 (result.y) differs"),
        (ONE, ONE + 1, "output 0 differs"),
        ({1, 2}, {1, 3}, "result{1} is 2, that of the other 3"),
        ({ONE, TWO}, {TWO + 1, ONE}, "differs"),
        (iter([1]), iter([2]), "result[0] is 1, that of the other 2"),
        ([ONE.untyped_storage()], [TWO.untyped_storage()], "8 bytes, that of the other 4 bytes"),
    ],
)
def test_what_differs_is_named_with_its_place(a: Any, b: Any, said: str) -> None:
    assert said in apart(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({ONE, TWO}, {TWO.clone(), ONE.clone()}),
        ({"a", "b", 1}, {1, "b", "a"}),
        ({frozenset([1]), frozenset([2, 3])}, {frozenset([2, 3]), frozenset([1])}),
        ([b"ab"], [b"cd"]),
        (iter([ONE]), (y for y in [ONE])),
        (map(abs, [1]), filter(None, [1])),
        ([ONE, None], [ONE, None]),
        ([ONE.untyped_storage()], [(ONE + 1).untyped_storage()]),
        ([1.0], [1.00001]),
        ([math.nan], [math.nan]),
        (SimpleNamespace(y=ONE, _at=1), SimpleNamespace(y=ONE, _at=2)),
        ([np.array([1.0])], [np.array([1.00001])]),
    ],
)
def test_what_may_differ_is_alike(a: Any, b: Any) -> None:
    difference(of(a), of(b), 1e-4, "the other")


def test_a_tensor_in_a_private_place_is_compared() -> None:
    assert "output 0 (result._y) differs" in apart(
        SimpleNamespace(_y=ONE), SimpleNamespace(_y=ONE + 1)
    )


def test_plain_lists_of_tensors_have_no_texts() -> None:
    compare_texts([ONE], [TWO], "the other")
    compare_texts(of([1]), [TWO], "the other")
    assert difference([ONE], [ONE], 0.0, "the other") == 0.0


def test_runs_with_other_texts_differ() -> None:
    assert differ(of(["a", ONE]), of(["b", ONE]))
    assert differ(of([ONE]), of([ONE + 1]))
    assert not differ(of(["a", ONE]), of(["a", ONE.clone()]))


def test_contents_are_copies() -> None:
    y = ONE.clone()
    found = of([y])
    y.add_(1)
    assert torch.equal(found[0], ONE)
