"""Recurrent layers: hidden units go from all gates at once, layer by layer and direction by
direction, and states follow what they start from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

import planc
from planc.analysis import Analysis
from planc.rules.families import recurrent
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, reasons, together

SEQUENCE = torch.randn(3, 2, 4)
LENGTHS = torch.tensor([2, 3])
Run = Callable[..., Tensor]


def layer(own: nn.Module, out: int = 5, run: Run = lambda m, y: m.l(y)[0]) -> Net:
    """A recurrent layer between two linear ones."""
    return Net(lambda m, x: m.b(run(m, m.a(x))), a=nn.Linear(4, 6), l=own, b=nn.Linear(out, 3))


def loop(m: Net, y: Tensor) -> Tensor:
    """A cell called step by step, its state begun by itself."""
    state = None
    for step in y:
        state = m.l(step, state)
    return state[0] if isinstance(state, tuple) else state  # type: ignore[return-value]


def outputs(m: Net, y: Tensor) -> Tensor:
    h = c = y.new_zeros(y.shape[1], m.l.hidden_size)
    found = []
    for step in y:
        h, c = m.l(step, (h, c))
        found.append(h)
    return torch.stack(found)


def packed(m: Net, y: Tensor, padding: float = 0.0, **options: Any) -> Tensor:
    sequence = pack_padded_sequence(y, LENGTHS, enforce_sorted=False, **options)
    return pad_packed_sequence(m.l(sequence)[0], padding_value=padding, **options)[0]


def last_states(m: Net, y: Tensor) -> Tensor:
    h = m.l(y)[1]
    return torch.cat([h[-2], h[-1]], 1)


LAYERS: dict[str, Net] = {
    "lstm": layer(nn.LSTM(6, 5)),
    "lstm without bias": layer(nn.LSTM(6, 5, bias=False)),
    "lstm of two layers": layer(nn.LSTM(6, 5, 2, dropout=0.5)),
    "lstm with batches first": layer(nn.LSTM(6, 5, batch_first=True)),
    "lstm in both directions": layer(nn.LSTM(6, 5, 2, bidirectional=True), 10),
    "lstm with projection": layer(nn.LSTM(6, 5, proj_size=3), 3),
    "lstm with all": layer(
        nn.LSTM(6, 5, 2, bias=False, batch_first=True, bidirectional=True, proj_size=3), 6
    ),
    "gru": layer(nn.GRU(6, 5)),
    "gru of three layers": layer(nn.GRU(6, 5, 3, batch_first=True)),
    "gru in both directions": layer(nn.GRU(6, 5, 2, bias=False, bidirectional=True), 10),
    "rnn": layer(nn.RNN(6, 5)),
    "rnn with relu": layer(nn.RNN(6, 5, 2, nonlinearity="relu", bidirectional=True), 10),
    "one sequence alone": layer(nn.LSTM(6, 5), run=lambda m, y: m.l(y[:, 0])[0]),
    "the last states": layer(nn.GRU(6, 5, 2, bidirectional=True), 10, last_states),
    "the last cell state": layer(nn.LSTM(6, 5, 2), run=lambda m, y: m.l(y)[1][1][-1]),
    "all last states side by side": layer(
        nn.LSTM(6, 5, 2), 10, lambda m, y: m.l(y)[1][0].transpose(0, 1).flatten(1)
    ),
    "directions apart": layer(
        nn.LSTM(6, 5, bidirectional=True),
        run=lambda m, y: m.l(y)[0].view(3, 2, 2, m.l.hidden_size).sum(2),
    ),
    "layer after layer": layer(
        nn.ModuleList([nn.LSTM(6, 5, 2), nn.GRU(5, 4)]),
        4,
        lambda m, y: m.l[1](m.l[0](y)[0])[0],
    ),
    "state handed on": layer(
        nn.ModuleList([nn.LSTM(6, 5, 2), nn.LSTM(6, 5, 2)]),
        run=lambda m, y: m.l[1](y, m.l[0](y)[1])[0],
    ),
    "lstm of packed sequences": layer(nn.LSTM(6, 5, 2, bidirectional=True), 10, packed),
    "gru of packed sequences": layer(
        nn.GRU(6, 5, batch_first=True),
        run=lambda m, y: packed(m, y.transpose(0, 1), batch_first=True),
    ),
    "rnn of packed sequences": layer(nn.RNN(6, 5), run=lambda m, y: packed(m, y, padding=2.0)),
    "rnn with relu of packed sequences": layer(nn.RNN(6, 5, nonlinearity="relu"), run=packed),
    "lstm cell": layer(nn.LSTMCell(6, 5), run=loop),
    "lstm cell in a loop": layer(nn.LSTMCell(6, 5), run=outputs),
    "gru cell": layer(nn.GRUCell(6, 5), run=loop),
    "gru cell without bias": layer(nn.GRUCell(6, 5, bias=False), run=loop),
    "rnn cell": layer(nn.RNNCell(6, 5), run=loop),
    "rnn cell with relu": layer(nn.RNNCell(6, 5, nonlinearity="relu"), run=loop),
    "cell of one sequence": layer(nn.LSTMCell(6, 5), run=lambda m, y: m.l(y[0, 0])[0]),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_shrink_without_mixing(name: str) -> None:
    found = prove(LAYERS[name], SEQUENCE)
    assert not any(group.mixing for group in found.groups)
    own = [tensor for tensor in found.graph.tensors if tensor.name.startswith("l.")]
    assert not any(
        reasons(found, tensor.name, d) for tensor in own for d in range(len(tensor.shape))
    )
    for target in ("module",) if found.graph.data_dependent else ("module", "graph"):
        assert prunable(found, target) == {group.name for group in found.groups}


def sizes(found: Analysis) -> dict[str, int]:
    return {group.name: group.size for group in found.groups}


@pytest.mark.long
def test_each_layer_and_direction_has_units_of_its_own() -> None:
    found = prove(LAYERS["lstm in both directions"], SEQUENCE)
    assert sizes(found) == {
        "a.weight:0": 6,
        "l.weight_ih_l0:0": 5,
        "l.weight_ih_l0_reverse:0": 5,
        "l.weight_ih_l1:0": 5,
        "l.weight_ih_l1_reverse:0": 5,
    }


def test_projected_and_hidden_units_are_two_things() -> None:
    found = prove(LAYERS["lstm with projection"], SEQUENCE)
    assert sizes(found) == {"a.weight:0": 6, "l.weight_ih_l0:0": 5, "l.weight_hh_l0:1": 3}


def test_a_unit_goes_from_all_gates() -> None:
    found = prove(LAYERS["lstm"], SEQUENCE)
    places = {f"{m.tensor}:{m.dim}": m.expand()[1] for m in found.groups[1].members}
    assert {place: len(indices) for place, indices in places.items()} == {
        "l.weight_ih_l0:0": 20,
        "l.weight_hh_l0:0": 20,
        "l.weight_hh_l0:1": 5,
        "l.bias_ih_l0:0": 20,
        "l.bias_hh_l0:0": 20,
        "b.weight:1": 5,
    }


def test_sizes_of_the_module_follow() -> None:
    net = LAYERS["lstm with all"].float()
    smaller: Any = planc.apply(planc.compile(net, SEQUENCE, ratio=0.4), net)
    assert (smaller.l.input_size, smaller.l.hidden_size, smaller.l.proj_size) == (4, 3, 2)
    assert smaller.l._flat_weights == list(smaller.l.parameters())
    assert all(a is b for a, b in zip(smaller.l._flat_weights, smaller.l.parameters(), strict=True))
    assert smaller.l.weight_ih_l1.shape == (12, 4)


def test_hidden_units_stay_more_than_projected_ones() -> None:
    """The operator takes equal widths for a layer without projection."""
    net = LAYERS["lstm with projection"].float()
    plan = planc.compile(net, SEQUENCE, ratio=0.8, only="l.weight_ih_l0:0")
    assert [group.kept for group in plan.groups] == [6, 4, 3]
    planc.verify(plan, net, planc.apply(plan, net), SEQUENCE)


# -- states that are given -------------------------------------------------------------------------


def test_a_state_that_is_an_input_keeps_the_units() -> None:
    net = Net(
        lambda m, x, h, c: m.b(m.l(m.a(x), (h, c))[0]),
        a=nn.Linear(4, 6),
        l=nn.LSTM(6, 5, 2),
        b=nn.Linear(5, 3),
    )
    found = prove(net, (SEQUENCE, torch.randn(2, 2, 5), torch.randn(2, 2, 5)))
    assert sizes(found) == {"a.weight:0": 6}
    assert "the other operand cannot shrink" in reasons(found, "l.weight_hh_l0", 1)


@pytest.mark.long
@pytest.mark.parametrize("own", [nn.LSTM(6, 5, 2, proj_size=3), nn.GRU(6, 5, 2), nn.RNN(6, 5, 2)])
def test_a_learned_state_loses_its_units_line_by_line(own: nn.RNNBase) -> None:
    out = own.proj_size or 5

    def run(m: Net, x: Tensor) -> Tensor:
        h = m.h.expand(-1, x.shape[1], -1).contiguous()
        if isinstance(m.l, nn.LSTM):
            h = (h, m.c.expand(-1, x.shape[1], -1).contiguous())
        return m.b(m.l(m.a(x), h)[0])

    net = Net(
        run,
        a=nn.Linear(4, 6),
        l=own,
        b=nn.Linear(out, 3),
        h=torch.randn(2, 1, out),
        **({"c": torch.randn(2, 1, 5)} if isinstance(own, nn.LSTM) else {}),
    )
    found = prove(net, SEQUENCE)
    own_lines = {"h:2": out, "h:2#2": out}
    assert own_lines.items() <= sizes(found).items()
    for line in ("l.weight_hh_l0:1", "l.weight_hh_l1:1"):
        assert together(found, "h:2", line)
    assert prunable(found, "module") == set(sizes(found))


def test_ones_to_start_from_are_not_zero_when_masked() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.l(y, torch.ones(1, x.shape[1], m.l.hidden_size, dtype=x.dtype))[0].sum(2)

    found = prove(Net(run, a=nn.Linear(4, 6), l=nn.GRU(6, 5)), SEQUENCE)
    assert {group.name: bool(group.mixing) for group in found.groups}["l.weight_ih_l0:0"]


@pytest.mark.long
def test_a_state_written_into_zeros_is_not_blank() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        state = torch.zeros(2, x.shape[1], m.l.hidden_size, dtype=x.dtype)
        state[1] = m.s(x[0])
        return m.b(m.l(m.a(x), state)[0])

    net = Net(run, a=nn.Linear(4, 6), s=nn.Linear(4, 5), l=nn.GRU(6, 5, 2), b=nn.Linear(5, 3))
    found = prove(net, SEQUENCE)
    assert together(found, "s.weight:0", "l.weight_hh_l0:1", "l.weight_hh_l1:1")


def test_time_stays() -> None:
    net = Net(
        lambda m, x: m.b(m.l(m.p)[0].sum(0)) * x,
        l=nn.GRU(6, 5),
        b=nn.Linear(5, 3),
        p=torch.randn(3, 2, 6),
    )
    found = prove(net, torch.randn(2, 3))
    assert sizes(found) == {"p:2": 6, "l.weight_ih_l0:0": 5}
    assert "a recurrent layer looks along it" in reasons(found, "p", 0)
    assert "the other operand cannot shrink" in reasons(found, "p", 1)


# -- models ----------------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(10, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.lstm(self.embed(tokens))[0])


@pytest.mark.long
def test_an_lstm_between_embedding_and_head_shrinks() -> None:
    found = prove(Tagger(), torch.arange(8).reshape(2, 4))
    assert together(found, "embed.weight:1", "lstm.weight_ih_l0:1", "lstm.weight_ih_l0_reverse:1")
    assert together(found, "lstm.weight_ih_l0_reverse:0", "lstm.weight_ih_l1:1")
    assert together(found, "lstm.weight_ih_l1:0", "out.weight:1")


@pytest.mark.parametrize("name", ["lstm with all", "gru of three layers", "rnn", "gru cell"])
def test_costs_are_what_torch_counts(name: str) -> None:
    """In double precision: the fused kernels of single precision hide what they do from it."""
    net, inputs = LAYERS[name].double().eval(), SEQUENCE.double()

    def measured(model: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(inputs)
        return counter.get_total_flops() // 2

    plan = planc.compile(net, inputs, ratio=0.4)
    assert plan.cost_before.macs == measured(net)
    assert plan.cost_after.macs == measured(planc.apply(plan, net)) < measured(net)


def test_every_operator_is_exercised() -> None:
    cases = [(net.double(), (SEQUENCE.double(),)) for net in LAYERS.values()]
    assert unseen(recurrent, cases) == set()
