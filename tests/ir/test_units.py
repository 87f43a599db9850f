"""The laws of units read from a bitmap: to all who look at them they are the tuple of the units."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import planc
from planc.cli.report.plain import plan_json
from planc.files.formats import decode_plan, encode_plan
from planc.ir.units import Units, marked
from planc.plan.plan import PlanGroup
from tests.support.small import build, contents

Case = tuple[Units, tuple[int, ...]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    marks = np.array(draw(st.lists(st.booleans(), min_size=1, max_size=40)))
    bitmap = np.packbits(marks, bitorder="little").tobytes()
    return Units(bitmap, len(marks)), tuple(np.flatnonzero(marks).tolist())


@given(cases())
def test_units_are_equal_to_their_tuple_both_ways(case: Case) -> None:
    units, expected = case
    assert units == expected
    assert expected == units
    assert hash(units) == hash(expected)
    assert repr(units) == str(units) == repr(expected)
    assert (units != expected) is (expected != units) is False
    assert units != (*expected, 99)
    assert units != [*expected]  # as a tuple is not


@given(cases(), cases())
def test_two_of_them_are_equal_where_their_tuples_are(left: Case, right: Case) -> None:
    assert (left[0] == right[0]) is (left[1] == right[1])
    assert left[0] == Units(left[0].bitmap + b"\0", left[0].size + 8)


@given(cases(), st.data())
def test_units_are_a_sequence_as_their_tuple_is(case: Case, data: st.DataObject) -> None:
    units, expected = case
    assert isinstance(units, Sequence)
    assert (len(units), bool(units), [*units]) == (len(expected), bool(expected), [*expected])
    assert [*reversed(units)] == [*reversed(expected)]
    assert [unit in units for unit in range(-1, 50)] == [u in expected for u in range(-1, 50)]
    assert "1" not in units
    ends = st.none() | st.integers(-45, 45)
    piece = slice(data.draw(ends), data.draw(ends), data.draw(st.sampled_from([None, 1, 2, -1])))
    assert units[piece] == expected[piece]
    for index in range(-len(expected), len(expected)):
        assert units[index] == expected[index]
        assert type(units[index]) is int
    with pytest.raises(IndexError):
        units[len(expected)]


@given(cases())
def test_units_are_read_by_numpy_and_copied_whole(case: Case) -> None:
    units, expected = case
    assert np.asarray(units, dtype=np.int64).tolist() == [*expected]
    assert marked(units, units.size).tolist() == marked(expected, units.size).tolist()
    assert marked(units, units.size + 3).tolist() == marked(expected, units.size + 3).tolist()
    for other in (copy.copy(units), copy.deepcopy(units), pickle.loads(pickle.dumps(units))):
        assert type(other) is Units
        assert other == expected


def test_marks_are_not_shared_with_those_who_change_them() -> None:
    units = Units(b"\x05", 8)
    marked(units, 8)[1] = True
    assert units == (0, 2)


@pytest.mark.parametrize("name", ["residual", "attention", "vit", "tied"])
def test_a_plan_that_was_read_does_all_that_the_compiled_one_does(name: str) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.5, criterion="random")
    read = decode_plan(encode_plan(plan))
    assert any(isinstance(group.removed, Units) for group in read.groups)
    assert not any(isinstance(group.removed, Units) for group in plan.groups)
    assert read == plan
    assert plan == read
    assert hash(read) == hash(plan)
    assert repr(read) == repr(plan)
    assert plan_json(read) == plan_json(plan)
    smaller, kept = planc.apply(read, model, keep_removed=True)
    assert contents(smaller) == contents(planc.apply(plan, model))
    assert contents(planc.restore(read, smaller, kept)) == contents(model)
    assert contents(planc.mask(read, model)) == contents(planc.mask(plan, model))
    planc.verify(read, model, smaller, inputs)
    second = planc.compile(smaller, inputs, ratio=0.3, criterion="random")
    assert encode_plan(planc.compose(read, decode_plan(encode_plan(second)))) == encode_plan(
        planc.compose(plan, second)
    )
    assert planc.diff(read, plan) == planc.diff(plan, plan)


def test_groups_read_from_a_file_are_what_was_written() -> None:
    model, inputs = build("attention")
    plan = planc.compile(model, inputs, ratio=0, kinds={"heads": 0.5, "head_dim": 0.5})
    for before, after in zip(plan.groups, decode_plan(encode_plan(plan)).groups, strict=True):
        assert isinstance(after, PlanGroup)
        assert (after.kept, after.removed) == (before.kept, before.removed)
        assert torch.equal(torch.tensor(after.removed), torch.tensor(before.removed))
