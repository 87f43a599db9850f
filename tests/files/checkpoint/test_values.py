"""Claims of attributes as plain data: what is plain comes back as it was, what is not is known by
its type, and a value of no form is refused.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from planc.errors import MalformedFile
from planc.files.checkpoint.values import (
    comparable,
    decoded,
    encoded,
    modules_of,
    type_name,
)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        float("inf"),
        float("-inf"),
        "text",
        (1, (2, [3])),
        [],
        {},
        {"a": [1, {"b": None}], 3: (4,)},
        {True: 1, None: 2, 2.5: 3, float("-inf"): 4, torch.float16: 5},
        torch.Size([2, 3]),
        torch.Size([]),
        torch.bfloat16,
    ],
)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    back = decoded(encoded(value))
    assert back == value
    assert type(back) is type(value)


def test_what_is_not_plain_is_known_by_its_type() -> None:
    assert encoded(object()) == ("type", "builtins.object")
    assert encoded([1, {2}]) == ("list", 1, ("type", "builtins.set"))
    assert encoded(1 << 70) == ("type", "builtins.int")
    assert encoded("x" * 5000) == ("type", "builtins.str")
    with pytest.raises(MalformedFile):
        decoded(("type", "os.system"))


@pytest.mark.parametrize(
    "value",
    [
        ("secret", 1),
        (),
        ("float", "1.5"),
        ("float", 1.5),
        ("dict", ("a", 1, 2)),
        ("dict", "ab"),
        ("dict", 3),
        ("dict", ()),
        ("dict", ("a", 1), "ab"),
        ("dict", (("list", "a"), 1)),
        ("dict", (("dict", "a"), 1)),
        ("dict", (("float", 1.5), 1)),
        ("dict", (("type", "a.B"), 1)),
        ("size", "a"),
        ("size", 1, "a"),
        ("size", 2.0),
        ("size", True),
        ("size", 1 << 63),
        ("device", 0),
        ("dtype", "Tensor"),
        ("dtype", "nothing"),
        ("dtype", 5),
        ("type", "a.B"),
        ("list", ("type", "a.B")),
    ],
)
def test_a_value_of_no_form_is_refused(value: Any) -> None:
    with pytest.raises(MalformedFile, match="is no value of the record; save the checkpoint again"):
        decoded(value)


def test_values_know_their_bounds() -> None:
    assert encoded((1 << 63) - 1) == (1 << 63) - 1
    assert encoded(-(1 << 63)) == -(1 << 63)
    for large in (1 << 63, -(1 << 63) - 1):
        assert encoded(large) == ("type", "builtins.int")
    assert encoded("x" * 1024) == "x" * 1024
    assert encoded("é" * 513) == ("type", "builtins.str")
    assert encoded("\ud800") == ("type", "builtins.str")
    assert encoded([0] * 1023) == ("list", *[0] * 1023)
    assert encoded([0] * 1024) == ("type", "builtins.list")
    assert encoded({i: i for i in range(511)})[0] == "dict"
    assert encoded({i: i for i in range(512)}) == ("type", "builtins.dict")
    assert encoded([[[[[1]]]]]) == ("list", ("list", ("list", ("list", ("list", 1)))))
    assert encoded([[[[[[1]]]]]])[1][1][1][1][1] == ("type", "builtins.list")
    deep = {"a": {"b": {"c": {"d": {"e": 1}}}}}
    assert decoded(encoded(deep)) == deep
    deeper = encoded({"z": deep})
    for _ in range(5):
        deeper = deeper[1][1]
    assert deeper == ("type", "builtins.dict")
    assert encoded({(1,): 2}) == ("dict", (("type", "builtins.tuple"), 2))
    assert encoded(torch.device("cuda:0")) == ("device", "cuda:0")
    assert decoded(("device", "cuda:0")) == "cuda:0"
    assert encoded(float("-inf")) == ("float", "-inf")
    assert decoded(encoded(float("nan"))) != decoded(encoded(float("nan")))


@pytest.mark.parametrize("word", ["type", "device", "dtype", "float", "tuple", "list", "dict"])
def test_a_key_that_is_a_word_of_the_record_is_a_key_like_others(word: str) -> None:
    first, second = encoded({word: "a"}), encoded({word: "b"})
    assert decoded(first) == {word: "a"}
    assert decoded(second) == {word: "b"}


def test_a_device_that_is_a_key_comes_back_as_its_name() -> None:
    assert decoded(encoded({torch.device("cpu"): 1})) == {"cpu": 1}


@pytest.mark.parametrize(
    "leaf",
    [None, True, 3, "a", 0.5, float("inf"), torch.float16, torch.device("cpu"), object(), [], ()],
)
def test_every_leaf_counts_once(leaf: Any) -> None:
    """1024 are the most of one attribute, the list itself being one."""
    assert encoded([leaf] * 1023)[0] == "list"
    assert encoded([leaf] * 1024) == ("type", "builtins.list")
    assert encoded([[leaf] * 1022])[0] == "list"
    assert encoded([[leaf] * 1023]) == ("type", "builtins.list")
    assert encoded({"a": [leaf] * 1021})[0] == "dict"
    assert encoded({"a": [leaf] * 1022}) == ("type", "builtins.dict")


def test_a_refused_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(MalformedFile) as caught:
        decoded(("secret", "x" * 90))
    shown = "('secret', '" + "x" * 48
    assert str(caught.value) == f"{shown} is no value of the record; save the checkpoint again"


def test_what_is_compared_is_the_value_and_its_type() -> None:
    assert comparable(encoded((1, (2,)))) == comparable(encoded([1, [2]]))
    assert comparable(encoded(torch.Size([1]))) == comparable(encoded([1]))
    assert comparable(encoded([1])) == ("tuple", ("int", 1))
    assert comparable(encoded(())) == ("tuple",)
    assert len({comparable(encoded(value)) for value in (1, 1.0, True, "1", (1,), (True,))}) == 6
    assert comparable(("type", "a.B")) != comparable(3)


def test_modules_are_recorded_with_what_is_plain_and_public() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    model.mode, model.sizes, model.rates = "x", [1, (2,)], {"a": 0.5}
    model._hidden, model.hook, model.held = 1, len, torch.zeros(1)
    model.T_destination = 3
    named = {module.path: module for module in modules_of(model)}
    assert [name for name, _ in named[""].attributes] == ["mode", "rates", "sizes"]
    assert named["0"].type == "torch.nn.modules.linear.Linear"
    assert dict(named["0"].attributes) == {"in_features": 3, "out_features": 4}
    kind = type("X" * 300, (), {})
    assert len(type_name(kind)) == 200
