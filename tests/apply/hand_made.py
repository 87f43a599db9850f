"""Small models with plans written by hand, so that executors are tested without the analysis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from planc.ir.groups import Member, Over, Run
from planc.modules.tables import modules_of, tensors_of
from planc.plan.plan import AttributeChange, Cost, Fingerprints, Plan, PlanGroup, Provenance

NO_DIGESTS = Fingerprints(bytes(32), bytes(32), bytes(32))


def run(count: int, start: int = 0, step: int = 1, span: int = 1) -> tuple[Run, ...]:
    """``count`` units of ``span`` indices each, one after the other."""
    return (Run(0, count, start, step, span),)


def group(
    name: str, size: int, removed: Sequence[int], *members: Member, rows: int = 1
) -> PlanGroup:
    return PlanGroup(name, "channels", size, rows, members, removed=tuple(removed))


def plan_for(
    model: nn.Module, groups: Sequence[PlanGroup], changes: Sequence[AttributeChange] = ()
) -> Plan:
    """A plan for ``model`` with the tables that tracing would have recorded."""
    return Plan(
        source=NO_DIGESTS,
        result=NO_DIGESTS,
        tensors=tensors_of(model),
        modules=modules_of(model),
        groups=tuple(groups),
        attributes=tuple(changes),
        inputs=("tuple", ("tuple",), ("dict",)),
        target="module",
        provenance=(Provenance("hand", "hand", 0, ()),),
        cost_before=Cost(0, 0, 0),
        cost_after=Cost(0, 0, 0),
        shapes=b"",
    )


class ConvNet(nn.Module):
    """Two convolutions with a norm between, and a linear layer over the flattened 2 x 2 map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6 * 4, 5)
        self.register_buffer("scratch", torch.arange(8.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.second(x)), 2)
        return self.head(x.flatten(1))


def conv_plan(model: nn.Module) -> Plan:
    """Removes channels 0, 2 and 5 of the first convolution, 1 and 4 of the second."""
    norm = [Member(f"norm.{name}", 0, run(8)) for name in ("weight", "bias")]
    stats = [Member(f"norm.running_{name}", 0, run(8)) for name in ("mean", "var")]
    return plan_for(
        model,
        [
            group(
                "first.weight:0",
                8,
                [0, 2, 5],
                Member("first.weight", 0, run(8)),
                Member("first.bias", 0, run(8)),
                *norm,
                *stats,
                Member("scratch", 0, run(8)),
                Member("second.weight", 1, run(8)),
            ),
            group(
                "second.weight:0",
                6,
                [1, 4],
                Member("second.weight", 0, run(6)),
                Member("second.bias", 0, run(6)),
                Member("head.weight", 1, run(6, step=4, span=4)),
            ),
        ],
        [
            AttributeChange("first", "out_channels", 8, 5),
            AttributeChange("norm", "num_features", 8, 5),
            AttributeChange("second", "in_channels", 8, 5),
            AttributeChange("second", "out_channels", 6, 4),
            AttributeChange("head", "in_features", 24, 16),
        ],
    )


class GroupedNet(nn.Module):
    """A convolution in two groups, each of which reads its own half of the channels before it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 4, 3, padding=1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.grouped(torch.relu(self.before(x)))


def grouped_plan(model: nn.Module) -> Plan:
    """Removes input channel 1 of the first group and 2 (6 of all) of the second."""
    halves = [
        Member("grouped.weight", 1, (Run(4 * i, 4, 0, 1),), Over(0, 2 * i, 2 * i + 2))
        for i in range(2)
    ]
    return plan_for(
        model,
        [
            group(
                "before.weight:0",
                8,
                [1, 6],
                Member("before.weight", 0, run(8)),
                Member("before.bias", 0, run(8)),
                *halves,
                rows=2,
            )
        ],
        [
            AttributeChange("before", "out_channels", 8, 6),
            AttributeChange("grouped", "in_channels", 8, 6),
        ],
    )


class TiedNet(nn.Module):
    """An embedding whose weight is also the output layer's, and is looked at by a third name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.mix = nn.Linear(6, 6, bias=False)
        self.out = nn.Linear(6, 10, bias=False)
        self.out.weight = self.embed.weight
        self.seen = self.embed.weight.detach()  # a plain attribute on the same memory

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.mix(self.embed(tokens)))


def tied_plan(model: nn.Module) -> Plan:
    """Removes features 0 and 3 of the stream."""
    return plan_for(
        model,
        [
            group(
                "embed.weight:1",
                6,
                [0, 3],
                Member("embed.weight", 1, run(6)),
                Member("mix.weight", 0, run(6)),
                Member("mix.weight", 1, run(6)),
            )
        ],
        [
            AttributeChange("embed", "embedding_dim", 6, 4),
            AttributeChange("mix", "in_features", 6, 4),
            AttributeChange("mix", "out_features", 6, 4),
            AttributeChange("out", "in_features", 6, 4),
        ],
    )
