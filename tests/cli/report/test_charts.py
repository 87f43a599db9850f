"""Charts of the page: every parameter is in a bar, and every group in the picture of widths."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.cli.report.charts import overview, parts, stacked, widths
from planc.cli.report.sides import Row, Sides, Sizes
from planc.plan.plan import Plan, PlanGroup
from tests.support.strategies import plans


def sizes(**shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Sizes]:
    return [
        Sizes(name.replace("_", "."), "parameter", before, (after,))
        for name, (before, after) in shapes.items()
    ]


def row(name: str, *sides: tuple[int, int] | None) -> Row:
    """A group of that name with (units, removed units) in each plan."""
    return Row(
        tuple(
            side and PlanGroup(name, "channels", side[0], 1, (), "", tuple(range(side[1])))
            for side in sides
        )
    )


@settings(max_examples=25)
@given(plans())
def test_the_bars_add_up_to_the_parameters(plan: Plan) -> None:
    after = {name: cut.shape for name, cut in plan.cuts.items()}
    parameters = [tensor for tensor in plan.tensors if tensor.kind == "parameter"]
    for found in (parts(Sides((plan,)).tensors), overview(Sides((plan,)).tensors)):
        assert sum(part.params[0] for part in found) == sum(prod(t.shape) for t in parameters)
        assert sum(part.params[1] for part in found) == sum(
            prod(after.get(t.name, t.shape)) for t in parameters
        )


def test_modules_stand_at_the_greatest_depth_that_fits() -> None:
    found = parts(sizes(a_x_weight=((4, 4), (2, 4)), a_y_weight=((4,), (2,)), b_bias=((3,), (3,))))
    assert [(part.name, part.params, part.macs) for part in found] == [
        ("a.x", (16, 8), ()),
        ("a.y", (4, 2), ()),
        ("b", (3, 3), ()),
    ]


def test_macs_stand_beside_the_parameters_of_their_modules() -> None:
    macs = {"a.x": (100, 25), "a.attention": (10, 10)}
    found = parts(sizes(a_x_weight=((4, 4), (2, 4)), b_bias=((3,), (3,))), macs)
    assert [(part.name, part.params, part.macs) for part in found] == [
        ("a.x", (16, 8), (100, 25)),
        ("b", (3, 3), (0, 0)),
        ("a.attention", (0, 0), (10, 10)),
    ]


def test_layers_of_a_deep_network_share_bars() -> None:
    deep = {f"model_layers_{i}_weight": ((2,), (1,)) for i in range(100)}
    found = parts(sizes(embed_weight=((8,), (8,)), **deep))
    assert len(found) <= 24
    assert [part.name for part in found[:3]] == [
        "embed",
        "model.layers.0 – 4",
        "model.layers.5 – 9",
    ]
    assert sum(part.params[0] for part in found) == 208


def test_parameters_of_the_model_itself_have_a_name() -> None:
    assert parts(sizes(weight=((3,), (3,))))[0].name == "(the model itself)"
    assert parts([]) == ()


def test_stacked_bars_share_one_scale() -> None:
    found = parts(sizes(a_weight=((6,), (3,)), b_weight=((2,), (1,))))
    before, after = stacked([part.name for part in found], [part.params for part in found])
    assert [(s.start, s.width) for s in before] == [(0.0, 75.0), (75.0, 25.0)]
    assert [(s.start, s.width) for s in after] == [(0.0, 37.5), (37.5, 12.5)]
    assert [s.label for s in before] == ["a", "b"]


def test_halves_are_of_equal_length_in_the_picture_of_widths() -> None:
    found = widths([row("a.x:0", (64, 32)), row("b.x:0", (512, 256)), row("c.x:0", (16, 0))])
    lengths = [column.bottom - column.top for column in found.columns]
    assert lengths[0] == pytest.approx(lengths[1])
    assert lengths[2] == 0
    assert [width for _, width in found.lines] == [16, 32, 64, 128, 256, 512]
    assert [column.left for column in found.columns] == pytest.approx([0, 100 / 3, 200 / 3])


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 0.99)), max_size=30))
def test_columns_stay_in_the_picture(groups: list[tuple[int, float]]) -> None:
    rows = [row(f"m.{i}:0", (size, int(size * share))) for i, (size, share) in enumerate(groups)]
    found = widths(rows)
    assert len(found.columns) == len(rows)
    for column in found.columns:
        assert 0 <= column.top <= column.bottom <= 100
        assert column.left + column.width <= 100.001


def test_a_plan_without_the_group_has_no_mark() -> None:
    (column,) = widths([row("a:0", None, (8, 4))]).columns
    assert column.marks[0] is None
    assert column.row.common is None


def test_stages_are_named_where_their_names_have_room() -> None:
    names = [f"net.layer{i // 10}.{i % 10}.conv.weight:0" for i in range(40)]
    found = widths([row(name, (8, 4)) for name in names])
    assert found.stages == ((0.0, "layer0"), (25.0, "layer1"), (50.0, "layer2"), (75.0, "layer3"))


def test_the_common_share_is_that_of_units_removed_by_all() -> None:
    a, b = (PlanGroup("g", "channels", 8, 1, (), "", removed) for removed in ((0, 1, 2), (1, 2, 3)))
    assert Row((a, b)).common == 0.5
    assert Row((a, a)).common == 1.0
    assert Row((a, None)).common is None
