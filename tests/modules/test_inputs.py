"""Specifications of inputs say what a call was given, and make another call of the same form."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.errors import PlancError, TraceError
from planc.modules.inputs import as_call, materialise, specify
from planc.plan.specification import MOST_OF_ALL, MOST_OF_ONE, kept_values, without_values

Pair = namedtuple("Pair", "left right")


@dataclass
class Boxes:
    corners: torch.Tensor


def test_a_call_is_written_as_nested_tuples() -> None:
    args = (torch.zeros(2, 3), [torch.ones(4, dtype=torch.int64), None], ("fan", 0.5))
    kwargs = {"mask": torch.ones(2, dtype=torch.bool), "deep": {"a": 1, "b": (True,)}}
    assert specify(args, kwargs) == (
        "tuple",
        (
            "tuple",
            ("tensor", (2, 3), "float32"),
            ("list", ("tensor", (4,), "int64", (1, 1, 1, 1)), ("value", None)),
            ("tuple", ("value", "fan"), ("value", 0.5)),
        ),
        (
            "dict",
            ("mask", ("tensor", (2,), "bool")),
            ("deep", ("dict", ("a", ("value", 1)), ("b", ("tuple", ("value", True))))),
        ),
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Pair(torch.zeros(1), 2), "Pair"),
        (Boxes(torch.zeros(1)), "Boxes"),
        (OrderedDict(a=1), "OrderedDict"),
        ({1: 2}, "dict"),
        ({1, 2}, "set"),
        (1j, "complex"),
        (b"fan", "bytes"),
        (float("nan"), "float"),
        (float("inf"), "float"),
        (1 << 63, "int"),
        (torch.float32, "dtype"),
        (torch.zeros(3).to_sparse(), "Tensor"),
        (print, "builtin_function_or_method"),
    ],
)
def test_what_cannot_be_made_again_is_opaque_where_it_stands(value: Any, name: str) -> None:
    spec = specify((0, [value]), {})
    assert spec[1] == ("tuple", ("value", 0), ("list", ("opaque", name)))
    with pytest.raises(PlancError, match=rf"args\[1\]\[0\] is a {name}.*give the inputs"):
        materialise(spec)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
)
tensors = st.builds(
    torch.zeros,
    st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from(
        [
            torch.float16,
            torch.bfloat16,
            torch.float64,
            torch.complex64,
            torch.float8_e4m3fn,
            torch.int8,
            torch.uint8,
            torch.bool,
        ]
    ),
)
nested = st.recursive(
    values | tensors,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(nested, max_size=3).map(tuple), st.dictionaries(st.text(max_size=2), nested))
def test_what_is_made_has_the_specification_it_was_made_from(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = specify(args, kwargs)
    hash(spec)
    made_args, made_kwargs = materialise(spec)
    assert specify(made_args, made_kwargs) == spec
    assert list(made_kwargs) == list(kwargs)
    assert specify(*materialise(spec, device="meta")) == without_values(spec)


def test_without_values_floats_are_normal_integers_zero_and_booleans_true() -> None:
    given_args = (torch.zeros(1000), torch.ones(3, dtype=torch.int32), torch.zeros(3) > 0)
    spec = without_values(specify(given_args, {"z": torch.zeros(1000, dtype=torch.complex64)}))
    (x, index, flag), kwargs = materialise(spec, seed=3)
    assert abs(x.mean()) < 0.2
    assert abs(x.std() - 1) < 0.1
    assert index.tolist() == [0, 0, 0]
    assert flag.tolist() == [True] * 3
    assert kwargs["z"].imag.std() > 0.5


def test_small_integers_and_booleans_come_back_by_value() -> None:
    given_args = (torch.tensor([[5, -2], [0, 1 << 62]]), torch.tensor([True, False]))
    more = {"n": torch.tensor(7, dtype=torch.uint8)}
    more["wide"] = torch.tensor([2**64 - 1], dtype=torch.uint64)
    args, kwargs = materialise(specify(given_args, more))
    assert all(map(torch.equal, args, given_args))
    assert all(torch.equal(kwargs[name], value) for name, value in more.items())


def test_kept_values_are_bounded_for_one_tensor_and_for_all() -> None:
    one, more = torch.ones(MOST_OF_ONE, dtype=torch.int64), torch.ones(MOST_OF_ONE + 1).long()
    assert len(list(kept_values(specify((one, more), {})))) == 1
    several = [one] * (MOST_OF_ALL // MOST_OF_ONE + 2)
    kept = list(kept_values(specify((several, torch.ones(1).int()), {})))
    assert sum(map(len, kept)) == MOST_OF_ALL


def test_values_as_they_are_made_up_are_not_kept() -> None:
    plain = (torch.zeros(3).long(), torch.ones(2) > 0, torch.empty(0).int(), torch.ones(2))
    assert not list(kept_values(specify(plain, {})))
    assert not list(kept_values(specify((torch.ones(3, dtype=torch.int64, device="meta"),), {})))


@pytest.mark.parametrize("values", [(1,), (1, 2, 3), (1, 256), (1, -1)])
def test_values_that_do_not_fit_are_named(values: tuple[int, ...]) -> None:
    spec = ("tuple", ("tuple", ("tensor", (2,), "uint8", values)), ("dict",))
    with pytest.raises(PlancError, match=r"args\[0\]: . values do not fit uint8"):
        materialise(spec)


def test_made_up_floats_have_the_types_of_the_model() -> None:
    spec = specify((torch.zeros(2), torch.zeros(2).double(), torch.tensor([3])), {})
    half, double, index = materialise(spec, types=[torch.float16, torch.float64])[0]
    assert (half.dtype, double.dtype, index.tolist()) == (torch.float16, torch.float64, [3])


def test_a_call_is_a_tuple_a_list_one_argument_or_keywords_alone() -> None:
    x = torch.zeros(2)
    assert as_call((x, 1)) == as_call([x, 1]) == ((x, 1), {})
    assert as_call(x) == ((x,), {})
    assert as_call(None, {"x": x}) == ((), {"x": x})


@pytest.mark.parametrize("kwargs", [3, [torch.zeros(1)], {1: 2}, "x", torch.zeros(1)])
def test_keywords_that_are_no_mapping_from_names_are_refused(kwargs: Any) -> None:
    with pytest.raises(TraceError, match="kwargs is of type"):
        as_call((), kwargs)


def test_a_nested_tensor_is_named_with_the_remedy() -> None:
    nested_tensor = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)])
    with pytest.raises(TraceError, match=r"args\[0\] is a nested tensor.*pad it"):
        as_call(nested_tensor)
    with pytest.raises(TraceError, match=r"src is a nested tensor"):
        as_call(None, {"src": nested_tensor})


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    spec = specify((torch.zeros(4), torch.zeros(4)), {})
    before = torch.get_rng_state()
    (a, b), _ = materialise(spec, seed=1)
    (c, _), _ = materialise(spec, seed=1)
    (d, _), _ = materialise(spec, seed=2)
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    assert not torch.equal(a, d)
    assert torch.equal(before, torch.get_rng_state())


def test_a_size_is_a_tuple_and_a_parameter_is_a_tensor() -> None:
    given_args = (torch.zeros(2, 3).shape, torch.nn.Parameter(torch.zeros(2)))
    assert specify(given_args, {})[1][1:] == (
        ("tuple", ("value", 2), ("value", 3)),
        ("tensor", (2,), "float32"),
    )


@pytest.mark.parametrize(
    "part",
    [
        ("tensor", (2,), "no_such_type"),
        ("tensor", (2,), "nn"),
        ("tensor", (-1,), "float32"),
        ("tensor", (True,), "float32"),
        ("tensor", [2], "float32"),
        ("tensor", (2,)),
        ("dict", ("a",)),
        ("dict", (1, ("value", 1))),
        ("value", b"fan"),
        ("value", 1, 2),
        ("other", 1),
        (),
        None,
    ],
)
def test_a_malformed_part_is_named(part: Any) -> None:
    with pytest.raises(PlancError, match=r"kwargs\['x'\]"):
        materialise(("tuple", ("tuple",), ("dict", ("x", part))))


@pytest.mark.parametrize(
    "spec", [None, (), ("tuple",), ("tuple", ("dict",), ("tuple",)), ("list",)]
)
def test_what_is_no_call_is_refused(spec: Any) -> None:
    with pytest.raises(PlancError, match="not the specification"):
        materialise(spec)


def test_nothing_enormous_is_made_up() -> None:
    spec = ("tuple", ("tuple", ("tensor", (1 << 40, 1 << 20), "float32")), ("dict",))
    with pytest.raises(PlancError, match="give the inputs"):
        materialise(spec)
    assert materialise(spec, device="meta")[0][0].shape == (1 << 40, 1 << 20)
