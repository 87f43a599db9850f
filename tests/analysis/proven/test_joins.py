"""Proven removals: concatenations, splits and sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.proving import (
    IMAGES,
    Net,
    conv,
    prove,
    prunable,
    reasons,
    sizes,
    together,
)


def test_concatenated_copies_shrink_together() -> None:
    found = prove(
        Net(lambda m, x: m.b(torch.cat([m.a(x)] * 2, 1)), a=conv(3, 4), b=conv(8, 2)), IMAGES
    )
    assert sizes(found) == {"a.weight:0": 4}


def test_a_copy_turned_around_ties_its_ends() -> None:
    net = Net(
        lambda m, x: m.b(torch.cat([y := m.a(x), y.flip(1), y.roll(1, 1)], 1)),
        a=conv(3, 4),
        b=conv(12, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "b.weight:1")
    assert sizes(found) == {"a.weight:0": 3, "a.weight:0#2": 1}


def test_branches_of_different_width_join() -> None:
    net = Net(
        lambda m, x: m.c(torch.cat([m.a(x), x, m.b(x)], 1)),
        a=conv(3, 4),
        b=conv(3, 5),
        c=conv(12, 2),
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4, "b.weight:0": 5}


def test_each_layer_of_a_dense_block_is_a_group() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        features = [m.stem(x)]
        for layer in m.layers:
            features.append(layer(torch.cat(features, 1)).relu())
        return m.head(torch.cat(features, 1).mean((2, 3)))

    layers = nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(4 + 3 * i), conv(4 + 3 * i, 3)) for i in range(3)
    )
    found = prove(Net(run, stem=conv(3, 4), layers=layers, head=nn.Linear(13, 2)), IMAGES)
    assert len(found.groups) == 4


def test_slices_with_steps_keep_whole_steps() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, ::2] + m.a(x)[:, 1::2].roll(1, 2)), a=conv(3, 6), b=conv(3, 2)
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 3}


def test_slices_with_steps_that_do_not_fit_pin() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, ::4]), a=conv(3, 6), b=conv(2, 2))
    found = prove(net, IMAGES)
    assert "a slice with steps" in reasons(found, "a.weight", 0)


def test_literal_slices_pin_the_module_with_file_and_line() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, 2:5]) + m.c(m.a(x)[:, 5:]),
        a=conv(3, 8),
        b=conv(3, 2),
        c=conv(3, 2),
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 2, "a.weight:0#2": 3, "a.weight:0#3": 3}
    assert prunable(found, "module") == {"a.weight:0#3"}
    assert prunable(found, "graph") == {group.name for group in found.groups}
    assert any("test_joins.py:" in c.reason for c in found.equations("module").constraints)


def test_slices_at_computed_places_follow() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        half = y.shape[1] // 2
        return m.b(y[:, :half] * y[:, half:].sigmoid())

    found = prove(Net(run, a=conv(3, 8), b=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}
    assert sizes(found) == {"a.weight:0": 4}


def test_slices_counted_from_the_end() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, -3:]), a=conv(3, 8), b=conv(3, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 5, "a.weight:0#2": 3}


def test_a_slice_that_is_longer_than_the_dimension() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, -100:][:, :100]), a=conv(3, 8), b=conv(8, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 8}
    assert prunable(found, "module") == {"a.weight:0"}


def test_splits_of_splits_shrink_in_a_graph_alone() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, 1)
        one, two = left.split(3, 1)
        return m.b(torch.cat([two, right, one], 1))

    found = prove(Net(run, a=conv(3, 12), b=conv(12, 2)), IMAGES)
    assert prunable(found, "graph") == {group.name for group in found.groups} != set()
    assert not prunable(found, "module")


def test_a_split_by_attributes_follows_them() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        small, large = m.a(x).split(m.widths, 1)
        return m.b(small) + m.c(large)

    net = Net(run, a=conv(3, 7), b=conv(2, 2), c=conv(5, 2), widths=(2, 5))
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "a.weight:0#2"}


def test_both_halves_of_a_chunk_lose_equally_many() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, 1)
        return m.b(left) + m.c(right)

    found = prove(Net(run, a=conv(3, 8), b=conv(4, 2), c=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "a.weight:0#2"}
    assert len(found.equations("module").constraints) == 1
    assert not found.equations("graph").constraints


def test_unbound_channels_pin() -> None:
    net = Net(lambda m, x: m.b(torch.stack(m.a(x).unbind(1)[1:3], 1)), a=conv(3, 4), b=conv(2, 2))
    found = prove(net, IMAGES)
    assert "picked by its position" in reasons(found, "a.weight", 0)


def test_unbinding_a_stack_ties_its_items() -> None:
    net = Net(
        lambda m, x: m.b((pair := torch.stack([m.a(x), m.c(x)]).unbind(0))[0] * pair[1]),
        a=conv(3, 4),
        c=conv(3, 4),
        b=conv(4, 2),
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_stack_and_sum_keeps_what_is_not_zero_apart() -> None:
    net = Net(
        lambda m, x: m.b(torch.stack([y := m.a(x), y.sigmoid()]).sum(0)), a=conv(3, 4), b=conv(4, 2)
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_an_exponential_in_a_stack_is_seen_by_the_sum_over_channels() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return torch.stack([y, y.exp()]).sum((0, 2))

    found = prove(Net(run, a=conv(3, 4)), IMAGES)
    assert found.groups[0].mixing


def test_written_slices_of_zeros_shrink() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y, z = m.a(x), m.c(x)
        both = torch.zeros(y.shape[0], y.shape[1] + z.shape[1], *y.shape[2:], dtype=y.dtype)
        both[:, : y.shape[1]] = y
        both[:, y.shape[1] :] = z
        return m.b(both)

    found = prove(Net(run, a=conv(3, 4), c=conv(3, 3), b=conv(7, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "c.weight:0"}


def test_written_slices_are_not_zero_in_the_whole() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y[:, :, 1:3] = 1.0
        y[:, :, :1].add_(2).mul_(m.scale)
        return m.b(y.relu_()).sum((2, 3)) + y.sum((1, 2, 3))[:, None]

    found = prove(Net(run, a=conv(3, 4), scale=torch.ones(4, 1, 1), b=conv(4, 2)), IMAGES)
    assert "not zero" in found.groups[0].mixing


def test_an_operator_in_place_on_the_residual_stream() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        z += y
        y.exp_()
        return m.c(z) + m.d(y)

    found = prove(Net(run, a=conv(3, 4), b=conv(4, 4), c=conv(4, 2), d=conv(4, 2)), IMAGES)
    assert together(found, "a.weight:0", "b.weight:0", "b.weight:1", "c.weight:1", "d.weight:1")
