"""Parts that the traced run did not read: what follows the inputs stays, what a literal leaves out
may go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import planc
from planc.analysis.grouping.literals import is_literal
from planc.analysis.grouping.unread import FOLLOWS, UNREAD
from planc.plan.plan import Plan
from tests.support.proving import Net

LONGEST = 16
LENGTHS = (5, 8, LONGEST)

Make = Callable[[], nn.Module]


def tokens(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(2, length, 6, generator=generator, dtype=torch.float64)


def drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(7)))


def added(positions: Callable[[Any, Tensor], Tensor], **tensors: Any) -> Make:
    """Features plus positions."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.o(m.a(x).relu() + positions(m, x))

    return _net(run, tensors)


def attention(weigh: Callable[[Any, Tensor, int], Tensor], **tensors: Any) -> Make:
    """Attention whose scores are given to ``weigh`` with their length."""

    def run(m: Any, x: Tensor) -> Tensor:
        scores = m.a(x) @ m.k(x).transpose(1, 2)
        return m.o(weigh(m, scores, x.shape[1]).softmax(-1) @ m.v(x))

    return _net(run, {**tensors, "k": nn.Linear(6, 12), "v": nn.Linear(6, 12)})


def _net(run: Callable[..., Tensor], parts: dict[str, Any]) -> Make:
    def make() -> nn.Module:
        torch.manual_seed(0)
        modules = {k: v for k, v in parts.items() if isinstance(v, nn.Module)}
        net = Net(run, a=nn.Linear(6, 12), o=nn.Linear(12, 3), **modules)
        for name, tensor in parts.items():
            if isinstance(tensor, nn.Parameter):
                net.register_parameter(name, tensor)
            elif isinstance(tensor, Tensor):
                net.register_buffer(name, tensor)
        return net.double().eval()

    return make


POS = drawn(LONGEST, 12)
UPPER = torch.triu(torch.full((LONGEST, LONGEST), -9.0), 1)


def each_by_its_number(m: Any, x: Tensor) -> Tensor:
    return torch.stack([m.pos[t] for t in range(x.shape[1])])


def each_with_its_own(m: Any, x: Tensor) -> Tensor:
    return torch.stack([row[0] for _, row in zip(x.unbind(1), m.pos.split(1), strict=False)])


def between(m: Any, x: Tensor) -> Tensor:
    n = x.shape[1]
    return m.pos.split([n, LONGEST - n])[0] if n < LONGEST else m.pos


def grid(m: Any, x: Tensor) -> Tensor:
    """A square grid of positions, cropped to two rows of half the length."""
    half = (x.shape[1] + 1) // 2
    return m.pos.view(2, 8, 12)[:, :half].flatten(0, 1)[: x.shape[1]]


TABLES: dict[str, Make] = {
    "learned": added(lambda m, x: m.pos[: x.shape[1]], pos=POS),
    "learned, batched": added(lambda m, x: m.pos[:, : x.size(1)], pos=drawn(1, LONGEST, 12)),
    "sinusoidal": added(lambda m, x: m.pe[:, : x.size(-2)], pe=torch.randn(1, LONGEST, 12)),
    "length first": added(
        lambda m, x: m.pe[: x.shape[1], :].transpose(0, 1), pe=torch.randn(LONGEST, 1, 12)
    ),
    "behind others": added(lambda m, x: m.pos[2 : x.shape[1] + 2], pos=drawn(LONGEST + 2, 12)),
    "the last ones": added(lambda m, x: m.pos[-x.shape[1] :], pos=POS),
    "narrowed": added(lambda m, x: m.pos.narrow(0, 0, x.shape[1]), pos=POS),
    "cropped": added(lambda m, x: functional.pad(m.pos, (0, 0, 0, x.shape[1] - LONGEST)), pos=POS),
    "split": added(between, pos=POS),
    "split evenly": added(lambda m, x: m.pos.split(x.shape[1])[0], pos=POS),
    "one by one": added(each_by_its_number, pos=POS),
    "taken in turn": added(each_with_its_own, pos=POS),
    "known positions": added(lambda m, x: m.pos[torch.arange(x.shape[1])], pos=POS),
    "listed positions": added(lambda m, x: m.pos[list(range(x.shape[1]))], pos=POS),
    "embedded positions": added(
        lambda m, x: m.e(torch.arange(x.shape[1])), e=nn.Embedding(LONGEST, 12)
    ),
    "buffer of positions": added(
        lambda m, x: m.pos[m.ids[: x.shape[1]]], pos=POS, ids=torch.arange(LONGEST)
    ),
    "scaled before": added(
        lambda m, x: (m.pos * m.scale).unsqueeze(0)[:, : x.shape[1]], pos=POS, scale=drawn(1)
    ),
    "projected before": added(
        lambda m, x: m.p(m.pos)[: x.shape[1]], pos=drawn(LONGEST, 4), p=nn.Linear(4, 12)
    ),
    "expanded before": added(
        lambda m, x: m.pos.expand(x.shape[0], -1, -1)[:, : x.shape[1]], pos=drawn(1, LONGEST, 12)
    ),
    "reversed before": added(lambda m, x: m.pos.flip(0)[: x.shape[1]], pos=POS),
    "in a grid": added(grid, pos=POS),
    "summed up": added(lambda m, x: m.pos[: x.shape[1]].sum(0), pos=POS),
    "plain length": added(lambda m, x: m.pos[: len(x[0])], pos=POS),
    "length as int": added(lambda m, x: m.pos[: int(x.shape[1])], pos=POS),
    "one number each": added(lambda m, x: m.pos[: x.shape[1], None], pos=drawn(LONGEST)),
    "mixed tokens": added(
        lambda m, x: m.w[: x.shape[1], : x.shape[1]] @ m.a(x), w=drawn(LONGEST, LONGEST)
    ),
    "computed rows": _net(
        lambda m, x: m.o(m.s(x)[..., : x.shape[1]].softmax(-1) @ m.a(x)),
        {"s": nn.Linear(6, LONGEST)},
    ),
    "causal, added": attention(lambda m, w, n: w + m.t[:n, :n], t=UPPER),
    "causal, factor": attention(lambda m, w, n: w * m.t[:n, :n], t=(UPPER == 0).float()),
    "causal, filled": attention(lambda m, w, n: w.masked_fill(m.t[:n, :n] < 0, -9.0), t=UPPER),
    "causal, truth values": attention(
        lambda m, w, n: w.masked_fill(m.t[:n, :n], -9.0), t=UPPER.bool()
    ),
    "causal, four dimensions": attention(
        lambda m, w, n: (w[:, None] + m.t[:, :, :n, :n])[:, 0],
        t=UPPER.view(1, 1, LONGEST, LONGEST),
    ),
    "relative": attention(
        lambda m, w, n: w + m.t[torch.arange(n)[:, None] - torch.arange(n) + LONGEST - 1],
        t=drawn(2 * LONGEST - 1),
    ),
    "relative, a stretch": attention(
        lambda m, w, n: w + m.t[LONGEST - n : LONGEST], t=drawn(LONGEST)
    ),
}
TARGETS: Sequence[Any] = ("module", "graph")


def groups(plan: Plan) -> list[tuple[Any, ...]]:
    return [(g.name, g.kind, g.size, g.removed, g.members) for g in plan.groups]


@pytest.mark.parametrize("name", TABLES)
def test_plans_do_not_depend_on_the_length_of_the_example(name: str) -> None:
    model = TABLES[name]()
    for target in TARGETS:
        plans = [planc.compile(model, tokens(n), ratio=0.5, target=target) for n in LENGTHS]
        assert plans[0].groups, "a table hides no features"
        assert groups(plans[0]) == groups(plans[1]) == groups(plans[2])


@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
def test_a_plan_of_a_short_example_holds_for_long_ones(name: str) -> None:
    model = TABLES[name]()
    plan = planc.compile(model, tokens(5), ratio=0.5)
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    for length in LENGTHS:
        found, expected = smaller(tokens(length)), masked(tokens(length))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    planc.verify(plan, model, smaller, tokens(5))


@pytest.mark.parametrize("name", TABLES)
def test_lossless_keeps_what_longer_inputs_read(name: str) -> None:
    model = TABLES[name]()
    ready, plan = planc.lossless(model, tokens(5))
    found = planc.apply(plan, ready)(tokens(LONGEST))
    torch.testing.assert_close(found, model(tokens(LONGEST)), rtol=1e-9, atol=1e-9)


def test_the_reason_is_said() -> None:
    found = planc.analyze(planc.trace(TABLES["learned"](), (tokens(5),)))
    (pin,) = (pin for pin in found.pins if pin.tensor == "pos" and pin.dim == 0)
    assert (pin.count, pin.size) == (LONGEST, LONGEST)
    assert UNREAD in pin.reason or FOLLOWS in pin.reason


# -- what stays prunable ---------------------------------------------------------------------------


class Widths(nn.Module):
    """Reads a part that is told by an attribute."""

    def __init__(self, run: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.keep, self.run = 10, run
        self.pos, self.a, self.o = POS, nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.o(self.a(x) * self.run(self).sum())
        return y


FIXED: dict[str, Callable[[Any], Tensor]] = {
    "a literal": lambda m: m.pos[:10],
    "literals": lambda m: m.pos[0:10, 2:],
    "a list": lambda m: m.pos[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
    "narrowed": lambda m: m.pos.narrow(0, 0, 10),
    "narrowed by a function": lambda m: torch.narrow(m.pos, 0, 0, 10),
    "cropped": lambda m: functional.pad(m.pos, (0, 0, 0, -6)),
    "split": lambda m: m.pos.split([10, 6])[0],
    "an attribute": lambda m: m.pos[: m.keep],
    "half an attribute": lambda m: m.pos[: m.keep // 2 + 5],
}


@pytest.mark.parametrize("name", FIXED)
def test_what_the_code_leaves_out_for_all_inputs_may_go(name: str) -> None:
    model = Widths(FIXED[name]).double().eval()
    found = planc.analyze(planc.trace(model, (tokens(5),)))
    assert LONGEST - 10 in {g.size for g in found.groups if g.name.startswith("pos:0")}
    ready, plan = planc.lossless(model, tokens(5))
    outputs = planc.apply(plan, ready)(tokens(LONGEST))
    torch.testing.assert_close(outputs, model(tokens(LONGEST)), rtol=1e-9, atol=1e-9)


def test_lossless_removes_what_a_literal_leaves_out() -> None:
    _, plan = planc.lossless(Widths(FIXED["a literal"]).double().eval(), tokens(5))
    assert 5 in {len(g.removed) for g in plan.groups if g.name.startswith("pos:0")}  # all but one


def name_of_the_length(m: Any) -> Tensor:
    n = 10
    return m.pos[:n]


UNCLEAR: dict[str, Callable[[Any], Tensor]] = {
    "a name": name_of_the_length,
    "a loop": lambda m: torch.stack([m.pos[i] for i in range(10)]),
    "an expression": lambda m: m.pos[: len("0123456789")],
    "code without a file": eval("lambda m: m.pos[:10]", {}),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_may_be_another_part_for_another_input_stays(name: str) -> None:
    model = Widths(UNCLEAR[name]).double().eval()
    found = planc.analyze(planc.trace(model, (tokens(5),)))
    (pin,) = (pin for pin in found.pins if pin.tensor == "pos" and pin.dim == 0)
    assert pin.count >= LONGEST - 10
    _, plan = planc.lossless(model, tokens(5))
    assert not any(g.removed for g in plan.groups if g.name.startswith("pos:0"))


def test_slices_of_channels_by_literals_are_as_free_as_before() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.b(m.a(x)[..., 2:10])
        return y

    net = Net(run, a=nn.Linear(6, 12), b=nn.Linear(8, 3)).double().eval()
    found = planc.analyze(planc.trace(net, (tokens(5),)))
    assert {group.size for group in found.groups} == {2, 8}


def test_what_one_of_several_ways_through_a_model_leaves_out_stays() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.o(y[..., :6] if x.sum() > 0 else y[..., 6:])  # type: ignore[no-any-return]

    net = Net(run, a=nn.Linear(6, 12), o=nn.Linear(6, 3)).double().eval()
    for sign in (1, -1):
        found = planc.analyze(planc.trace(net, (tokens(5).abs() * sign,)))
        assert found.graph.data_dependent
        (pin,) = (pin for pin in found.pins if (pin.tensor, pin.dim) == ("a.weight", 0))
        assert pin.count >= 6
        assert UNREAD in pin.reason


# -- literals --------------------------------------------------------------------------------------


def test_which_lines_spell_their_indices_out(tmp_path: Any) -> None:
    path = tmp_path / "code.py"
    lines = {
        "x[:5]": True,
        "x[..., -2:, None, [1, 2]]": True,
        "x[:5] + y[: n]": False,
        "x[: self.n]": False,
        "x[i]": False,
        "f(x)": False,
        "x.shape[1]": True,
    }
    path.write_text("\n".join(lines))
    found = [is_literal((str(path), i), "slice") for i in range(1, len(lines) + 1)]
    assert found == list(lines.values())
    assert is_literal((str(path), 4), "slice", attributes=True)
    path.write_text(
        "x.narrow(0, 1, 2)\ntorch.narrow(x, 0, 1, 2)\nx.narrow(0, 1, n)\npad(x, (-1, 2))"
    )
    assert [is_literal((str(path), i), "narrow") for i in (1, 2, 3)] == [True, True, False]
    assert is_literal((str(path), 4), "constant_pad_nd")
    path.write_text("x[:5] +")
    assert not is_literal((str(path), 1), "slice")
    assert not is_literal((str(tmp_path / "none.py"), 1), "slice")


# -- the law ---------------------------------------------------------------------------------------


@st.composite
def sliced(draw: st.DrawFn) -> tuple[Make, int]:
    """A table behind a few operators, sliced by the length, and the length of the example."""
    steps = draw(st.lists(st.sampled_from(["flip", "scale", "t", "linear", "relu"]), max_size=3))
    start, length = draw(st.integers(0, 3)), draw(st.integers(2, LONGEST))
    end = draw(st.booleans())

    def positions(m: Any, x: Tensor) -> Tensor:
        table = m.pos
        for step in steps:
            if step == "flip":
                table = table.flip(0)
            elif step == "scale":
                table = table * m.scale
            elif step == "t":
                table = table.t().contiguous().t()
            else:
                table = m.p(table) if step == "linear" else table.relu()
        if end:
            return table[table.shape[0] - x.shape[1] - start : table.shape[0] - start]
        return table[start : start + x.shape[1]]

    tensors = {"pos": drawn(LONGEST + 3, 12), "scale": drawn(12), "p": nn.Linear(12, 12)}
    return added(positions, **tensors), length


@given(sliced(), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_plan_holds_for_all_lengths(case: tuple[Make, int], seed: int) -> None:
    make, length = case
    model = make()
    plan = planc.compile(model, tokens(length), ratio=0.5, criterion="random", seed=seed)
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    for other in np.unique([2, length, LONGEST]).tolist():
        found, expected = smaller(tokens(other)), masked(tokens(other))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
