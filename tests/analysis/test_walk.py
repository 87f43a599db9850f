"""The walk: how often it is repeated, what it asks for, what it does without a rule."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.analysis.walk import Walked
from planc.rules.labels.facts import NEVER
from tests.programs import write
from tests.support.proving import Net, free, prove, reasons, together

walking: Any = import_module("planc.analysis.walk")  # the package has the function by this name

TOKENS = torch.randn(2, 3, 6)


def walked(net: nn.Module, *args: Tensor) -> Walked:
    return walking.walk(planc.trace(net.eval(), args))


def attention() -> Net:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).view(2, 3, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return m.o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(2, 3, 8))

    return Net(run, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2))


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many times graphs have been walked since the test began."""
    run, counted = walking._Walk.run, list[None]()

    def counting(self: Any) -> Any:
        counted.append(None)
        return run(self)

    monkeypatch.setattr(walking._Walk, "run", counting)
    return lambda: len(counted)


def test_a_model_without_rows_is_walked_once(walks: Callable[[], int]) -> None:
    walked(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), TOKENS)
    assert walks() == 1


def test_rows_are_there_after_a_few_walks(walks: Callable[[], int]) -> None:
    found = walked(attention(), TOKENS)
    assert 2 <= walks() <= 4
    rows = [slot for slot in found.facts.slots if slot.rows is not None]
    assert {slot.count for slot in rows} >= {2, 6}  # two heads, each in query, key and value


def test_a_grouped_kernel_gets_atoms_for_each_group() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    found = walked(net, torch.randn(1, 3, 4, 4))
    ragged = [slot for slot in found.facts.slots if slot.blocks > 1]
    assert [(slot.dim, slot.over, slot.blocks, slot.count) for slot in ragged] == [(1, 0, 2, 4)]


def test_rows_that_are_not_given_in_time_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(group.kind == "heads" for group in prove(attention(), TOKENS).groups)
    monkeypatch.setattr(walking, "_MOST_WALKS", 1)
    found = prove(attention(), TOKENS)
    assert not any(group.kind == "heads" for group in found.groups)
    with pytest.raises(planc.AnalysisError, match="still being asked for after 1 walks"):
        walking.walk(found.graph, strict=True)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_too_few_walks_are_sound(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(walking, "_MOST_WALKS", 1 + seed % 2)
    program = write(seed, length=5)
    prove(program.model(), program.inputs(), seeds=(seed,))


def test_every_value_has_labels_of_its_shape() -> None:
    graph = planc.trace(attention(), TOKENS)
    found = walking.walk(graph)
    for value, x in zip(graph.values, found.labels, strict=True):
        assert x.shape == value.shape
        for layer in x.layers:
            assert layer.atoms.ndim == x.rank
            assert layer.atoms.shape[layer.target] == x.shape[layer.target] > 1
            assert layer.atoms.max() < found.facts.next_atom
            assert layer.atoms.min() >= NEVER


def test_an_operator_without_a_rule_pins_what_it_touches_alone() -> None:
    net = Net(
        lambda m, x: m.c(torch.rot90(m.a(x), 2)) + m.d(m.b(x)),
        a=nn.Linear(6, 4),
        b=nn.Linear(6, 5),
        c=nn.Linear(4, 2),
        d=nn.Linear(5, 2),
    )
    found = prove(net, TOKENS)
    assert [node.op for node in found.unknown] == ["aten.rot90.default"]
    assert "aten.rot90.default has no rule" in reasons(found, "a.weight", 0)
    assert together(found, "b.weight:0", "d.weight:1")


def test_an_operator_without_a_rule_on_inputs_alone_is_no_matter() -> None:
    net = Net(lambda m, x: m.b(m.a(torch.rot90(x, 2))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    graph = planc.trace(net, TOKENS)
    assert not planc.analyze(graph, strict=True).unknown


def test_strict_names_operator_module_line_and_remedy() -> None:
    inner = Net(lambda m, x: torch.rot90(m.a(x), 2), a=nn.Linear(6, 4))
    net = nn.Sequential(inner, nn.Linear(4, 2))
    with pytest.raises(planc.AnalysisError) as caught:
        planc.analyze(planc.trace(net, TOKENS), strict=True)
    for part in ("aten.rot90.default", " in 0 ", "test_walk.py:", "planc.rule"):
        assert part in str(caught.value)


def test_integer_buffers_have_no_atoms() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, m.order]), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    net.register_buffer("order", torch.tensor([2, 0, 1]))
    found = prove(net, TOKENS)
    assert free(found, "a.weight", 0)
    assert not [m for group in found.groups for m in group.members if m.tensor == "order"]
