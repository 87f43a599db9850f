"""Views by strides keep the labels of whole dimensions, whose strides follow the sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.proving import TOKENS, Net, free, prove, prunable, reasons, together


def net(run: Any) -> Net:
    return Net(lambda m, x: m.b(run(m, m.a(x).relu())), a=nn.Linear(6, 8), b=nn.Linear(8, 2))


def taken(y: Tensor, size: Any) -> Tensor:
    return y.as_strided(size, y.stride())


def windows(m: Any, y: Tensor) -> Tensor:
    """Overlapping pairs of positions, added."""
    b, n, c = y.shape
    outer, step, inner = y.stride()
    return y.as_strided((b, n - 1, 2, c), (outer, step, step, inner)).sum(2)


def chunks(m: Any, y: Tensor) -> Tensor:
    """Overlapping chunks, as sliding attention takes them."""
    y = torch.cat((y, y[:, :1]), 1)
    y = y.view(y.shape[0], 3, 2, y.shape[2])
    size, stride = list(y.size()), list(y.stride())
    size[1], stride[1] = size[1] * 2 - 1, stride[1] // 2
    return y.as_strided(size, stride).sum(2)


MOVED = {
    "the same": net(lambda m, y: taken(y, y.size())),
    "a copy": net(lambda m, y: torch.ops.aten.as_strided_copy(y, y.size(), y.stride())),
    "another shape": net(
        lambda m, y: y.as_strided((y.shape[0] * y.shape[1], y.shape[2]), (y.shape[2], 1))
    ),
    "the first position": net(lambda m, y: taken(y, (y.shape[0], 1, y.shape[2]))),
    "expanded": net(
        lambda m, y: y.as_strided((3, *y.shape), (0, *y.stride())).mean(0),
    ),
    "transposed": net(
        lambda m, y: y.as_strided(
            (y.size(2), y.size(1), y.size(0)), (y.stride(2), y.stride(dim=1), y.stride(0))
        ).transpose(0, 2)
    ),
    "windows": net(windows),
    "chunks": net(chunks),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MOVED)
def test_whole_dimensions_keep_their_labels(name: str) -> None:
    found = prove(MOVED[name], TOKENS, seeds=(0,))
    assert free(found, "a.weight", 0), reasons(found, "a.weight", 0)
    assert together(found, "a.weight:0", "b.weight:1")
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}


def test_strides_in_literals_hold_the_module_alone() -> None:
    found = prove(net(lambda m, y: y.as_strided((2, 5, 8), (40, 8, 1))), TOKENS, seeds=(0,))
    assert prunable(found, "module") == set()
    assert prunable(found, "graph") == {"a.weight:0"}


PINNED = {
    "an offset": lambda m, y: y.as_strided((2, 2, 8), (40, 8, 1), 8),
    "another order": lambda m, y: y.transpose(0, 1).as_strided((2, 5, 8), (8, 16, 1)),
    "through all": lambda m, y: y.as_strided((2, 3, 8), (1, 8, 1)),
    "across": lambda m, y: y.as_strided((4, 8), (7, 1)),
    "windows of channels": lambda m, y: y.as_strided((2, 5, 7, 2), (40, 8, 1, 1)).sum(-1),
}


@pytest.mark.parametrize("name", PINNED)
def test_others_pin(name: str) -> None:
    last = 7 if name == "windows of channels" else 8
    model = Net(
        lambda m, x: m.b(PINNED[name](m, m.a(x).relu())), a=nn.Linear(6, 8), b=nn.Linear(last, 2)
    )
    found = prove(model, TOKENS, seeds=(0,))
    assert any(r in reasons(found, "a.weight", 0) for r in ("read by strides", "windows slide"))
