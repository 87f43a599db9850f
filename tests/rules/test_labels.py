"""Laws of the label algebra, on random shapes and atoms."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.grouping import components
from planc.rules.labels import (
    Labelled,
    Layer,
    blocks,
    concatenate,
    contract,
    dense,
    permute,
    reshape,
    stack,
    take,
    unify,
)
from planc.rules.labels.facts import NEVER, Facts, Slot

Shape = tuple[int, ...]
SIZES = st.sampled_from([1, 2, 3, 4, 6])
SHAPES = st.lists(SIZES, min_size=1, max_size=4).map(tuple)


def labelled(cx: Facts, shape: Shape) -> Labelled:
    """A tensor with atoms of its own in each dimension."""
    layers = []
    for dim, n in enumerate(shape):
        if n > 1:
            slot = Slot(len(cx.slots), dim, cx.next_atom, n)
            cx.slots.append(slot)
            place = [n if d == dim else 1 for d in range(len(shape))]
            layers.append(Layer(cx.fresh(n).reshape(place), dim))
    return Labelled(shape, tuple(layers))


def ragged(cx: Facts, rows: int, cells: int) -> Labelled:
    return Labelled((rows, cells), (Layer(cx.fresh(rows * cells).reshape(rows, cells), 1),))


def written(x: Labelled) -> set[tuple[int, Shape, bytes]]:
    """The layers in full, to compare."""
    full = ((la.target, np.broadcast_to(la.atoms, x.shape)) for la in dense(x).layers)
    return {(target, atoms.shape, np.ascontiguousarray(atoms).tobytes()) for target, atoms in full}


def partition(cx: Facts) -> list[frozenset[int]]:
    """Which atoms are tied; those that are pinned are tied to atom 0."""
    component = components(cx)
    return sorted(
        (frozenset(np.flatnonzero(component == c).tolist()) for c in np.unique(component)), key=min
    )


def factorings(n: int) -> st.SearchStrategy[Shape]:
    """Shapes of n coordinates."""

    def split(n: int) -> st.SearchStrategy[Shape]:
        divisors = [d for d in range(1, n + 1) if n % d == 0]
        return st.sampled_from(divisors).flatmap(
            lambda d: st.just((n,)) if d in (1, n) else split(n // d).map(lambda rest: (d, *rest))
        )

    return split(n)


@given(SHAPES.flatmap(lambda shape: st.tuples(st.just(shape), factorings(math.prod(shape)))))
def test_blocks_cover_both_shapes_with_equal_products(shapes: tuple[Shape, Shape]) -> None:
    old, new = shapes
    at = (0, 0)
    for i, j, k, m in blocks(old, new):
        assert (i, k) == at
        assert math.prod(old[i:j]) == math.prod(new[k:m])
        at = (j, m)
    assert at == (len(old), len(new))


@given(st.lists(st.tuples(SIZES, st.integers(0, 3)), min_size=1, max_size=3), st.data())
def test_reshape_there_and_back_gives_the_same_layers(
    dims: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Where each dimension is split (and none merged) nothing is lost."""
    cx = Facts()
    shape = tuple(n for n, _ in dims)
    x = labelled(cx, shape)
    new = tuple(m for n in shape for m in data.draw(factorings(n)))
    back = reshape(cx, reshape(cx, x, new), shape)
    assert written(back) == written(x)
    assert not cx.ties
    assert not cx.pins


@given(SHAPES, st.data())
def test_a_merged_dimension_splits_again(shape: Shape, data: st.DataObject) -> None:
    cx = Facts()
    x = labelled(cx, shape)
    back = reshape(cx, reshape(cx, x, (math.prod(shape),)), shape)
    assert written(back) <= written(x) or cx.pins or cx.ties
    assert {la.target for la in back.layers} == {la.target for la in x.layers}


@given(SHAPES, st.data())
def test_permutations_compose(shape: Shape, data: st.DataObject) -> None:
    cx = Facts()
    x = labelled(cx, shape)
    first = data.draw(st.permutations(range(len(shape))))
    second = data.draw(st.permutations(range(len(shape))))
    both = [first[d] for d in second]
    assert written(permute(permute(x, first), second)) == written(permute(x, both))
    assert written(permute(x, range(len(shape)))) == written(x)


@given(SHAPES, st.data())
def test_unify_is_symmetric_up_to_ties(shape: Shape, data: st.DataObject) -> None:
    """Which operand comes first decides whose atoms are kept, not what is tied and pinned."""
    other = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    other = other[data.draw(st.integers(0, len(shape) - 1)) :]
    left, right = Facts(), Facts()
    x, y = labelled(left, shape), labelled(left, other)
    v, w = labelled(right, shape), labelled(right, other)
    one, two = unify(left, x, y, "add"), unify(right, w, v, "add")
    assert partition(left) == partition(right)
    assert one.shape == two.shape
    component = components(left)
    assert {(la.target, component[la.atoms].tobytes()) for la in one.layers} == {
        (la.target, component[la.atoms].tobytes()) for la in two.layers
    }


@given(SHAPES, st.sampled_from(["add", "mul", "div"]))
def test_an_operand_with_itself_changes_nothing(shape: Shape, mode: str) -> None:
    cx = Facts()
    x = labelled(cx, shape)
    assert written(unify(cx, x, x, mode)) == written(x)  # type: ignore[arg-type]
    assert partition(cx) == partition(Facts(next_atom=cx.next_atom))


def test_zero_times_something_is_zero_and_zero_plus_something_is_not() -> None:
    cx = Facts()
    x, y = labelled(cx, (4,)), labelled(cx, (4,)).nonzero()
    assert unify(cx, x, y, "mul").layers[0].zero
    assert unify(cx, y, x, "mul").layers[0].zero
    assert not unify(cx, x, y, "add").layers[0].zero
    assert unify(cx, x, x, "add").layers[0].zero
    assert not cx.mixings
    unify(cx, y, x, "div")
    assert "division" in cx.mixings[0].reason


def test_an_operand_that_cannot_shrink_pins_the_other() -> None:
    cx = Facts()
    x = labelled(cx, (4,))
    assert not unify(cx, x, Labelled((4,)), "add").layers
    assert partition(cx) == [frozenset(range(5))]
    assert unify(Facts(), x, Labelled((1,)), "add").layers


def test_heads_and_cells_stay_apart() -> None:
    """A row layer and a cell layer of both operands are tied each with its like."""
    cx = Facts()
    rows = [Layer(cx.fresh(2).reshape(2, 1), 0) for _ in range(2)]
    cells = [Layer(cx.fresh(6).reshape(2, 3), 1) for _ in range(2)]
    unify(cx, *(Labelled((2, 3), (r, c)) for r, c in zip(rows, cells, strict=True)), "mul")
    assert partition(cx)[1:] == [
        *(frozenset({1 + i, 3 + i}) for i in range(2)),
        *(frozenset({5 + i, 11 + i}) for i in range(6)),
    ]


def test_a_ragged_layer_meets_a_plain_one() -> None:
    """One vector for all rows ties the cells of different rows."""
    cx = Facts()
    x, y = ragged(cx, 2, 3), Labelled((3,), (Layer(cx.fresh(3), 0),))
    unify(cx, x, y, "mul")
    assert partition(cx)[1:] == [frozenset({1 + i, 4 + i, 7 + i}) for i in range(3)]


def test_merging_ragged_rows_in_row_major_order_is_free_and_across_is_not() -> None:
    cx = Facts()
    x = ragged(cx, 2, 3)
    reshape(cx, x, (6,))
    assert not cx.ties
    reshape(cx, permute(x, (1, 0)), (6,))
    assert partition(cx)[1:] == [frozenset({1 + i, 4 + i}) for i in range(3)]


def test_two_views_with_the_same_atoms_are_both_balanced() -> None:
    cx = Facts()
    x = labelled(cx, (8,))
    reshape(cx, x, (2, 4))
    reshape(cx, x, (4, 2))
    reshape(cx, x, (4, 2))
    assert [b.left[0].shape for b in cx.related("balanced")] == [(2, 4), (4, 2)]


def test_a_split_asks_for_rows() -> None:
    cx = Facts()
    reshape(cx, labelled(cx, (12,)), (2, 3, 2))
    specs = [request.array.tolist() for request in cx.requests]
    assert specs == [[1] * 6 + [2] * 6, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]]


def test_rows_that_occur_once_for_each_example_are_the_same_rows() -> None:
    """Batch and heads in one dimension, as in nn.MultiheadAttention."""
    cx = Facts()
    x = Labelled((2, 6), labelled(cx, (1, 6)).layers)
    reshape(cx, x, (2 * 3, 2))
    assert [request.array.tolist() for request in cx.requests] == [[1, 1, 2, 2, 3, 3]]


@given(st.integers(2, 5), st.integers(2, 5), st.integers(2, 5))
def test_a_contraction_ties_what_is_summed(i: int, j: int, k: int) -> None:
    cx = Facts()
    x, y = labelled(cx, (i, j)), labelled(cx, (j, k))
    z = contract(cx, x, "ij", y, "jk", "ik")
    assert z.shape == (i, k)
    assert [la.atoms.reshape(-1).tolist() for la in z.layers] == [
        x.layers[0].atoms.reshape(-1).tolist(),
        y.layers[1].atoms.reshape(-1).tolist(),
    ]
    assert sum(len(part) == 2 for part in partition(cx)) == j


@given(st.lists(SIZES, min_size=1, max_size=3), st.integers(1, 3))
def test_concatenation_moves_labels_along(sizes: list[int], other: int) -> None:
    cx = Facts()
    parts = [labelled(cx, (other, n)) for n in sizes]
    y = concatenate(cx, parts, 1)
    assert y.shape == (other, sum(sizes))
    expected: list[int] = []
    for part in parts:
        own = part.targeting(1)
        expected += own[0].atoms.reshape(-1).tolist() if own else [NEVER]
    along = y.targeting(1)
    assert not along or along[0].atoms.reshape(-1).tolist() == expected


def test_a_stack_is_zero_where_all_parts_are() -> None:
    cx = Facts()
    x = labelled(cx, (4,))
    assert stack(cx, [x, x], 0).layers[0].zero
    assert not stack(cx, [x, x.nonzero()], 0).layers[0].zero


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)))))
def test_taking_all_in_another_order_and_back(drawn: tuple[int, list[int]]) -> None:
    n, order = drawn
    cx = Facts()
    x = labelled(cx, (n, 3))
    there = take(cx, x, 0, np.array(order))
    back = take(cx, there, 0, np.argsort(order))
    assert written(back) == written(x)
    assert not cx.pins
