"""Layout operators, joining, cutting and padding: labels move along with coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import planc
from planc.rules.families import layout, padding, pieces
from tests.rules.coverage import unseen
from tests.support.proving import Net, free, prove, prunable, reasons, together

ops = torch.ops.aten
IMAGES = torch.randn(2, 3, 4, 4)
TOKENS = torch.randn(2, 3, 6)
Run = Callable[[Tensor], Tensor]


def images(op: Run, width: int = 8, out: int = 8) -> Net:
    """An operator between two convolutions."""
    return Net(lambda m, x: m.b(op(m.a(x))), a=nn.Conv2d(3, width, 1), b=nn.Conv2d(out, 2, 1))


def tokens(op: Run, width: int = 8, out: int = 8) -> Net:
    """An operator between two linear layers."""
    return Net(lambda m, x: m.b(op(m.a(x))), a=nn.Linear(6, width), b=nn.Linear(out, 2))


MOVED: dict[str, Net] = {
    "view": tokens(lambda y: y.view(6, -1).view(2, 3, -1)),
    "reshape": tokens(lambda y: y.transpose(0, 1).reshape(6, -1).reshape(3, 2, -1)),
    "_unsafe_view": tokens(lambda y: ops._unsafe_view(y, [6, y.shape[2]])),
    "view_copy": tokens(lambda y: ops.view_copy(y, [6, y.shape[2]])),
    "view_as": tokens(lambda y: y.flatten(0, 1).view_as(y).reshape_as(y)),
    "view_as_complex": images(
        lambda y: torch.view_as_real(torch.view_as_complex(torch.stack([y, y.sin()], -1)))[..., 0]
    ),
    "complex pairs": tokens(lambda y: torch.view_as_complex(y.view(2, 3, -1, 2)).real, out=4),
    "view_as_real_copy": images(lambda y: ops.view_as_real_copy(torch.complex(y, y.sin())).sum(-1)),
    "flatten": Net(lambda m, x: m.b(m.a(x).flatten(1)), a=nn.Conv2d(3, 4, 1), b=nn.Linear(64, 2)),
    "ravel": Net(
        lambda m, x: m.b(torch.ravel(m.a(x[:1]))), a=nn.Conv2d(3, 4, 1), b=nn.Linear(64, 2)
    ),
    "unflatten": images(lambda y: y.flatten(2).unflatten(2, (4, 4))),
    "squeeze": images(lambda y: y.unsqueeze(1).squeeze(1)[:, None].squeeze()),
    "squeeze two": images(lambda y: y[:, None, None].squeeze((1, 2))),
    "permute": tokens(lambda y: y.permute(1, 0, 2).permute(-2, -3, -1)),
    "transpose": tokens(
        lambda y: y.transpose(1, 2).swapaxes(1, 2).swapdims(-1, 0).transpose(0, -1)
    ),
    "matrix transposes": tokens(lambda y: ops.adjoint(ops.mH(y.mT).mT)),
    "t": tokens(lambda y: y.flatten(0, 1).t().t()),
    "matrix_H": tokens(lambda y: ops.matrix_H(ops.matrix_H(y.flatten(0, 1)))),
    "T": tokens(lambda y: ops.numpy_T(ops.numpy_T(y))),
    "movedim": images(lambda y: y.movedim(1, -1).moveaxis((3, 1), (1, 2)).transpose(2, 3)),
    "unfold": tokens(lambda y: y.unfold(1, 2, 1).sum(-1)),
    "unfold_copy": images(lambda y: ops.unfold_copy(y, 2, 3, 1).mean(-1).unfold(-1, 2, 2).mean(-1)),
    "expand": tokens(lambda y: y[:, :1].expand(-1, 3, -1) + y),
    "expand to a shape": tokens(lambda y: y[:, :1].expand(2, 3, y.shape[2]) + y),
    "expand_copy": tokens(lambda y: ops.expand_copy(y[:, :1], [2, 3, y.shape[2]])),
    "broadcast_to": tokens(lambda y: y[0].broadcast_to(y.shape)),
    "expand_as": tokens(lambda y: y[:, :1].expand_as(y) * y),
    "expanded gate": images(lambda y: y * y.mean(1, keepdim=True).sigmoid().expand_as(y)),
    "expanded to channels": images(
        lambda y: y * y.sum(1, keepdim=True).sigmoid().expand(-1, y.shape[1], -1, -1)
    ),
    "repeat positions": tokens(lambda y: y[:, :1].repeat(1, 3, 1) + y),
    "repeat to channels": images(
        lambda y: y * y.mean(1, keepdim=True).sigmoid().repeat(1, y.shape[1], 1, 1)
    ),
    "repeat channels": images(lambda y: y.repeat(1, 2, 1, 1), out=16),
    "repeat with a new dimension": tokens(lambda y: y.repeat(2, 1, 1, 2), out=16),
    "tile": images(lambda y: torch.tile(y, (3, 1, 1)), out=24),
    "repeat_interleave": tokens(lambda y: y[:, :1].repeat_interleave(y.shape[1], 1) + y),
    "cat": images(lambda y: torch.cat([y, y.sin()], 1), out=16),
    "cat of positions": tokens(lambda y: torch.cat([y, y.sin()], 1)),
    "cat with an empty one": tokens(lambda y: torch.cat([torch.zeros(0), y], -2)),
    "concat": images(lambda y: ops.concatenate([ops.concat([y, y.sin()], 1), y], 1), out=24),
    "stack": images(lambda y: torch.stack([y, y.sin()], 2).flatten(1, 2), out=16),
    "hstack": images(lambda y: torch.hstack([y, y.sin()]), out=16),
    "vstack": tokens(lambda y: torch.vstack([y, y.sin()])),
    "row_stack": tokens(lambda y: torch.row_stack([y, y.sin()])),
    "atleast": tokens(lambda y: torch.atleast_3d(torch.atleast_2d(torch.atleast_1d(y)))),
    "dstack": tokens(lambda y: torch.dstack([y, y.sin()]), out=16),
    "column_stack": images(lambda y: torch.column_stack([y, y.sin()]), out=16),
    "slice of positions": tokens(lambda y: y[:, 1:] + y[:, ::2]),
    "slice from zero": images(lambda y: y[:, 0:]),
    "narrow positions": tokens(lambda y: y.narrow(1, 1, 2)),
    "select a position": tokens(lambda y: y[:, -1] + y.select(1, 0)),
    "select_copy": tokens(lambda y: ops.select_copy(y, 1, 0)),
    "unbind positions": tokens(lambda y: sum(y.unbind(1))),
    "split positions": tokens(lambda y: y.split(2, 1)[1] + y.split([1, 2], 1)[0]),
    "unsafe splits": tokens(
        lambda y: ops.unsafe_split(y, 2, 1)[1] + ops.unsafe_split_with_sizes(y, [1, 2], 1)[0]
    ),
    "chunk": images(lambda y: (p := y.chunk(2, 1))[0] * p[1], out=4),
    "unsafe_chunk": images(lambda y: (p := y.unsafe_chunk(2, 1))[0] * p[1], out=4),
    "tensor_split": images(lambda y: (p := y.tensor_split(2, 1))[0] * p[1], out=4),
    "hsplit": images(lambda y: (p := y.hsplit(2))[0] * p[1], out=4),
    "vsplit": tokens(lambda y: (p := y.vsplit(2))[0] * p[1]),
    "dsplit": tokens(lambda y: (p := y.dsplit(2))[0] * p[1], out=4),
    "tensor_split at": tokens(lambda y: y.tensor_split((1,), 1)[1]),
    "every second": images(lambda y: y[:, ::2] * y[:, 1::2], out=4),
    "glu": images(lambda y: functional.glu(y, 1), out=4),
    "flip": images(lambda y: y.flip((1, 3))),
    "roll positions": images(lambda y: y.roll((1, -1), (2, 3))),
    "roll channels all the way": images(lambda y: y.roll(0, 1)),
    "pad positions": images(lambda y: functional.pad(y, (1, 1, 0, -1))),
    "pad with ones": images(lambda y: ops.pad(y, (1, 1), "constant", 1.0)),
    "reflection_pad": images(lambda y: functional.pad(y, (1, 1, 1, 1), mode="reflect")),
    "replication_pad": images(lambda y: functional.pad(y, (1, 1, 1, 1), mode="replicate")),
    "circular pad": images(lambda y: functional.pad(y, (1, 1, 1, 1), mode="circular")),
    "pad modes": images(lambda y: ops.pad(y, (1, 1, 1, 1), "reflect")),
    "the same size": images(lambda y: y.clone().resize_(y.shape)),
    "tril": images(lambda y: y.tril() + y.triu(1)),
}
PINNED: dict[str, tuple[Net, str]] = {
    "bytes": (images(lambda y: y.contiguous().view(torch.int64).to(y.dtype)), "another type"),
    "new rank": (
        Net(
            lambda m, x: m.b(torch.dstack([m.a(x)[0], m.a(x)[1]])[..., 0]),
            a=nn.Linear(6, 4),
            b=nn.Linear(4, 2),
        ),
        "change of rank",
    ),
    "steps that do not fit": (images(lambda y: y[:, ::3], out=3), "steps"),
    "steps from within": (images(lambda y: y[:, 2::2], out=3), "steps"),
    "steps up to a place": (images(lambda y: y[:, :6:2], out=3), "steps"),
    "one channel": (images(lambda y: y[:, :1], out=1), "single coordinate"),
    "select": (images(lambda y: y[:, 7, None], out=1), "picked by its position"),
    "from the end": (images(lambda y: y[:, -8, None], out=1), "picked by its position"),
    "unbind": (images(lambda y: torch.stack(y.unbind(1), 1)), "picked by its position"),
    "fewer chunks": (images(lambda y: y.chunk(5, 1)[0], out=2), "number of chunks"),
    "another size": (images(lambda y: y.clone().resize_(2, 8, 4, 2)), "another size"),
    "rolled as one": (images(lambda y: y.roll(1)), "one long row"),
    "rolled around": (images(lambda y: y.roll(9, 1)), "more than once around"),
    "reflected channels": (
        tokens(lambda y: functional.pad(y, (1, 1), mode="reflect"), out=10),
        "own content",
    ),
    "triangle of channels": (tokens(lambda y: y.tril()), "triangle"),
    "a computed position": (
        images(lambda y: torch.narrow(y, 1, torch.tensor(2), 3), out=3),
        "computed position",
    ),
    "an empty tensor": (
        tokens(lambda y: torch.cat([y[:, :0].reshape(0, 8), y.flatten(0, 1)])),
        "empty",
    ),
}


def pair(name: str) -> Any:
    return TOKENS if isinstance((MOVED.get(name) or PINNED[name][0]).a, nn.Linear) else IMAGES


def test_every_operator_is_exercised() -> None:
    nets = {**MOVED, **{name: net for name, (net, _) in PINNED.items()}}
    cases = [(net.double(), (pair(name).double(),)) for name, net in nets.items()]
    left = set().union(*(unseen(family, cases) for family in (layout, padding, pieces)))
    ranks = {f"aten.{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)}
    assert left <= ranks | {
        "aten._reshape_copy",
        "aten.narrow_copy",
        "aten.slice_scatter",  # see below
        "aten._pad_circular",
        "aten._pad_enum",
        "aten.constant_pad_nd",
        "aten.split.sizes",
    }


@pytest.mark.long
@pytest.mark.parametrize("name", MOVED)
def test_labels_move_along(name: str) -> None:
    found = prove(MOVED[name], pair(name))
    assert free(found, "a.weight", 0), reasons(found, "a.weight", 0)
    assert prunable(found, "module") == prunable(found, "graph") == {g.name for g in found.groups}
    assert together(found, "a.weight:0", "b.weight:1")


EACH_REPEATED = {
    "channels": images(lambda y: y.repeat_interleave(2, 1), out=16),
    "all": Net(
        lambda m, x: m.b(m.a(x)[0, 0].repeat_interleave(2)), a=nn.Linear(6, 4), b=nn.Linear(8, 2)
    ),
    "by an attribute": Net(
        lambda m, x: m.b(m.a(x).repeat_interleave(m.times, -1)),
        a=nn.Linear(6, 4),
        b=nn.Linear(8, 2),
        times=2,
    ),
}


@pytest.mark.parametrize("name", EACH_REPEATED)
def test_copies_of_each_channel_go_as_their_number_allows(name: str) -> None:
    found = prove(EACH_REPEATED[name], IMAGES if name == "channels" else TOKENS, seeds=(0,))
    assert together(found, "a.weight:0", "b.weight:1")
    copies = {"a.weight:0", "b.weight:1/rows"}
    assert prunable(found, "graph") == copies
    assert prunable(found, "module") == (copies if "attribute" in name else {"a.weight:0"})


@pytest.mark.parametrize("name", PINNED)
def test_what_needs_its_place_pins(name: str) -> None:
    net, reason = PINNED[name]
    found = prove(net, pair(name), seeds=(0,))
    assert reason in reasons(found, "a.weight", 0)


BYTES: dict[str, tuple[Run, Tensor]] = {
    "wider": (lambda b: b.view(torch.float64), torch.randn(8).double().view(torch.uint8)),
    "wider, of 16 bits": (lambda b: b.view(torch.float16), torch.randn(8).half().view(torch.uint8)),
    "narrower": (lambda b: b.view(torch.int8)[..., :8].double() / 64, torch.arange(1, 3)),
    "as wide": (lambda b: b.view(torch.int64) % 7, torch.randn(8).double()),
    "complex": (lambda b: b.view(torch.float64), torch.randn(4, dtype=torch.complex128)),
    "of one number": (lambda b: b.view(torch.int32) % 7, torch.tensor(1.5)),
}


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("target", ["module", "graph"])
def test_a_tensor_that_is_read_as_another_type_leaves_the_others_free(
    name: str, target: Any
) -> None:
    read, content = BYTES[name]
    model = Net(
        lambda m, x: m.c(m.b(m.a(x) * read(m.t).to(x.dtype)).relu()),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 4),
    )
    model.register_buffer("t", content)
    plan = planc.compile(model.eval(), TOKENS, ratio=0.5, target=target)
    assert 4 in {len(group.removed) for group in plan.groups if group.name == "b.weight:0"}
    planc.verify(plan, model, planc.apply(plan, model), TOKENS)


def test_values_that_are_read_as_another_type_of_another_size_are_pinned() -> None:
    net = tokens(lambda y: y.view(torch.int32).to(y.dtype) * 1e-9, out=16)
    assert "another type" in reasons(prove(net, TOKENS, seeds=(0,)), "a.weight", 0)


LITERAL: dict[str, tuple[Net, int]] = {  # how many channels the module can lose nevertheless
    "narrow": (images(lambda y: y.narrow(1, 2, 3), out=3), 3),
    "split": (images(lambda y: y.split(4, 1)[0], out=4), 0),
    "split sizes": (images(lambda y: y.split([3, 5], 1)[1], out=5), 0),
    "tensor_split": (images(lambda y: y.tensor_split((3, -2), 1)[1], out=3), 3),
    "roll": (images(lambda y: y.roll(-2, 1)), 6),
    "crop": (images(lambda y: functional.pad(y, (0, 0, 0, 0, -2, -3)), out=3), 3),
    "slice": (images(lambda y: y[:, 2:-3], out=3), 3),
    "view": (tokens(lambda y: y.view(6, 8)), 0),
    "expand": (images(lambda y: y * y.mean(1, keepdim=True).expand(2, 8, 4, 4)), 0),
    "repeat": (images(lambda y: y * y.mean(1, keepdim=True).repeat(1, 8, 1, 1)), 0),
    "unflatten": (
        Net(
            lambda m, x: m.b(m.a(x).flatten(1).unflatten(1, (8, 4, 4))),
            a=nn.Conv2d(3, 8, 1),
            b=nn.Conv2d(8, 2, 1),
        ),
        0,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LITERAL)
def test_literals_bind_the_module_alone(name: str) -> None:
    net, loose = LITERAL[name]
    found = prove(net, TOKENS if isinstance(net.a, nn.Linear) else IMAGES)
    assert free(found, "a.weight", 0)
    units = {group.name: group.size for group in found.groups}
    assert prunable(found, "graph") == set(units)
    assert sum(units[group] for group in prunable(found, "module")) == loose


UNEVEN: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "chunk": lambda y: y.chunk(3, 1),
    "chunk, a small rest": lambda y: y.chunk(4, 1),
    "unsafe_chunk": lambda y: y.unsafe_chunk(3, 1),
    "tensor_split": lambda y: y.tensor_split(3, 1),
    "tensor_split, one more": lambda y: y.tensor_split(4, 1),
}


@pytest.mark.long
@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_parts_shrink_as_the_operator_measures_them(name: str) -> None:
    """13 channels: the parts of the pruned module are those that the operator makes."""
    split = UNEVEN[name]
    widths = [part.shape[1] for part in split(torch.ones(1, 13))]

    def run(m: Any, x: Tensor) -> Any:
        parts = split(m.a(x))
        return sum(getattr(m, f"p{i}")(part) for i, part in enumerate(parts))

    parts = {f"p{i}": nn.Conv2d(width, 2, 1) for i, width in enumerate(widths)}
    net = Net(run, a=nn.Conv2d(3, 13, 1), **parts)
    found = prove(net, IMAGES)
    names = {group.name for group in found.groups}
    assert prunable(found, "module") == prunable(found, "graph") == names
    assert len(names) == sum(width > 1 for width in widths)
    for target in ("module", "graph"):
        plan = planc.compile(net, IMAGES.double(), ratio=0.5, target=target)
        assert plan.cost_after.params < 0.7 * plan.cost_before.params


class Nested(nn.Module):
    """Rows of a weight read as 4 lines of 15, and as 2 pairs of these lines."""

    def __init__(self, outer: int, inner: int) -> None:
        super().__init__()
        self.sizes = outer, inner
        self.base = nn.Linear(3, outer * inner * 5)
        self.of_outer, self.of_all = nn.Linear(outer, 5), nn.Linear(outer * inner, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outer, inner = self.sizes
        lines = self.base(x).view(1, outer * inner, 5)
        pairs = lines.view(1, outer, inner, 5).permute(0, 3, 2, 1)
        return self.of_outer(pairs), self.of_all(lines.permute(0, 2, 1))


@pytest.mark.parametrize(("outer", "inner"), [(2, 2), (3, 2), (4, 3), (2, 5)])
def test_rows_of_rows_are_units(outer: int, inner: int) -> None:
    found = prove(Nested(outer, inner), torch.randn(1, 3), target="graph")
    assert [group.size for group in found.groups] == [outer]
    assert together(found, "base.weight:0", "of_outer.weight:1", "of_all.weight:1")
    assert prunable(found, "graph") == {"base.weight:0"}


def write_into(form: str, y: Tensor) -> Tensor:
    """The sum of ``y`` and its sine, written into a tensor by an overload with ``out``."""
    if form == "itself":
        return torch.add(y, y.sin(), out=y)
    if form == "another":
        return torch.add(y, y.sin(), out=torch.empty_like(y))
    if form == "without its result":
        z = y.cos()
        torch.add(y, y.sin(), out=z)
        return z
    if form == "a matrix product":
        return torch.matmul(y.movedim(1, -1), torch.eye(8).to(y), out=torch.empty(2, 4, 4, 8).to(y))
    z = torch.zeros(1, dtype=y.dtype)
    return torch.add(y, y.sin(), out=z)  # takes another size


OUT = ("itself", "another", "without its result")


@pytest.mark.parametrize("form", OUT)
def test_results_written_into_a_tensor_are_those_returned(form: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            return m.b(write_into(form, m.a(x)))

    net = Net(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1))
    found = prove(net, IMAGES)
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert together(found, "a.weight:0", "b.weight:1")


@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_takes_another_size_pins() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            return m.b(write_into("another size", m.a(x)))

    net = Net(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1))
    assert reasons(prove(net, IMAGES), "a.weight", 0)


@pytest.mark.parametrize(("times", "factor"), [(4, 2), (2, 2), (8, 2), (9, 3)])
def test_repeated_channels_are_shuffled_into_pixels(times: int, factor: int) -> None:
    """The shortcut of an upsampling block, beside its convolution."""
    width = 8 * times // factor**2

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        shortcut = functional.pixel_shuffle(y.repeat_interleave(times, 1), factor)
        return m.b(functional.pixel_shuffle(m.c(y), factor) + shortcut)

    parts = {"c": nn.Conv2d(8, 8 * times, 1), "b": nn.Conv2d(width, 2, 1)}
    net = Net(run, a=nn.Conv2d(3, 8, 1), **parts)
    found = prove(net, IMAGES, seeds=(0,))
    assert prunable(found, "module") == {"a.weight:0"}
    assert together(found, "a.weight:0", "c.weight:0", "b.weight:1")


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "slice_scatter": lambda y: torch.slice_scatter(y, y[:, :, 1:3].sin(), 2, 1, 3),
    "slice_scatter of channels": lambda y: torch.slice_scatter(y, y[:, :4].sin(), 1, 0, 4),
    "slice_scatter with steps": lambda y: torch.slice_scatter(y, y[..., ::2].sin(), 3, 0, 4, 2),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_parts_written_over_keep_their_channels(name: str) -> None:
    net = Net(lambda m, x: m.b(WRITTEN[name](m.a(x))), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1))
    found = prove(net, IMAGES, seeds=(0,))
    assert together(found, "a.weight:0", "b.weight:1") or "picked" in reasons(found, "a.weight", 0)
    assert prunable(found, "graph") == {group.name for group in found.groups}
