"""Modules of torch that check sizes in code of their own: their attributes follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.plan.plan import Plan
from tests.support.proving import Net

LAYERS: dict[str, Any] = {"nhead": 4, "dim_feedforward": 24, "batch_first": True}


def ids(length: int) -> Tensor:
    return torch.randint(0, 20, (2, length), generator=torch.Generator().manual_seed(length))


def causal(m: Any, a: Tensor, b: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(b.shape[1])
    found: Tensor = m.out(m.tr(m.emb(a), m.emb(b), tgt_mask=mask, tgt_is_causal=True))
    return found


def padded(m: Any, a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = m.out(m.tr(m.emb(a), m.emb(b), src_key_padding_mask=a == 0))
    return found


def of_two(m: Any, a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = m.out(m.tr(m.emb(a), m.emb(b)))
    return found


def of_one(m: Any, a: Tensor) -> Tensor:
    found: Tensor = m.out(m.tr(m.emb(a)))
    return found


class Own(nn.TransformerEncoderLayer):
    """A layer with a class of its own."""


def transformer(**options: Any) -> nn.Module:
    return nn.Transformer(16, num_encoder_layers=1, num_decoder_layers=1, **{**LAYERS, **options})


MODELS: dict[str, tuple[Any, Any, int]] = {
    "transformer": (of_two, transformer, 2),
    "transformer, norms first": (of_two, lambda: transformer(norm_first=True), 2),
    "transformer, causal": (causal, transformer, 2),
    "transformer, padded": (padded, transformer, 2),
    "transformer, own encoder": (
        of_two,
        lambda: transformer(custom_encoder=nn.TransformerEncoder(Own(16, **LAYERS), 1)),
        2,
    ),
    "encoder": (of_one, lambda: nn.TransformerEncoder(Own(16, **LAYERS), 2), 1),
    "decoder": (
        of_two,
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(16, **LAYERS), 1),
        2,
    ),
}


def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    run, part, count = MODELS[name]
    torch.manual_seed(0)
    net = Net(run, emb=nn.Embedding(20, 16), tr=part(), out=nn.Linear(16, 5))
    return net.eval(), (ids(7), ids(5))[:count]


def compiled(name: str) -> Plan:
    model, args = made(name)
    plan = planc.compile(model, args, ratio=0.5)
    smaller = planc.apply(plan, model, args=args)
    planc.verify(plan, model, smaller, args)
    assert smaller(*args).shape == model(*args).shape
    return plan


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("name", MODELS)
def test_plans_for_modules_of_torch_apply_and_verify(name: str) -> None:
    plan = compiled(name)
    assert next(group for group in plan.groups if group.name == "emb.weight:1").removed
    if name.startswith("transformer"):
        (width,) = (a for a in plan.attributes if a.name == "d_model")
        assert (width.before, width.after) == (16, 8)


def test_a_state_that_a_module_of_torch_checks_keeps_its_width() -> None:
    net = Net(
        lambda m, a: m.out(m.rnn(m.emb(a), torch.zeros(1, 2, 12))[0]),
        emb=nn.Embedding(20, 16),
        rnn=nn.GRU(16, 12, batch_first=True),
        out=nn.Linear(12, 5),
    ).eval()
    plan = planc.compile(net, ids(7), ratio=0.5)
    planc.verify(plan, net, planc.apply(plan, net), ids(7))
    assert {g.size: len(g.removed) for g in plan.groups} == {16: 8, 12: 0}


class Checks(nn.Module):
    """As torch's modules do, in code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.d_model, self.a = 16, nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) != self.d_model:
            raise ValueError("the feature number is not d_model")
        y: Tensor = self.a(x) + x
        return y


def test_so_do_those_of_other_modules() -> None:
    net = Net(of_one, emb=nn.Embedding(20, 16), tr=Checks(), out=nn.Linear(16, 5)).eval()
    plan = planc.compile(net, ids(7), ratio=0.5)
    planc.verify(plan, net, planc.apply(plan, net), ids(7))
    assert [(a.name, a.before, a.after) for a in plan.attributes if a.name == "d_model"] == [
        ("d_model", 16, 8)
    ]
