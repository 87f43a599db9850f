"""A rule for your own operator.

python examples/own_operator.py
"""

import torch
from torch import Tensor, nn

import planc
from planc.rules import Facts, Labelled, unify


@torch.library.custom_op("examples::gated", mutates_args=())
def gated(x: Tensor, gate: Tensor, floor: Tensor) -> Tensor:
    """Return x * sigmoid(gate - floor), with one number in ``floor`` for each channel."""
    return x * torch.sigmoid(gate - floor)


@gated.register_fake
def _(x: Tensor, gate: Tensor, floor: Tensor) -> Tensor:
    return torch.empty_like(x)  # tracing needs the shape of the result, not its values


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(16, 64), nn.Linear(16, 64), nn.Linear(64, 8)
        self.floor = nn.Parameter(torch.randn(64))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(gated(self.up(x), self.gate(x), self.floor))
        return y


torch.manual_seed(0)
model = Gated().eval()
batch = torch.randn(2, 5, 16)

# without a rule the operator pins its operands, and `strict` names it
graph = planc.trace(model, batch)
assert not planc.analyze(graph).groups
try:
    planc.analyze(graph, strict=True)
except planc.AnalysisError as error:
    print(error)


# A rule takes facts to write to, then the operator's own parameters. Tensors arrive as labels on
# their coordinates; the algebra of planc.rules labels the result: `unify` aligns two operands like
# broadcasting and ties the units to remove together.
@planc.rule("examples.gated")
def gated_rule(facts: Facts, x: Labelled, gate: Labelled, floor: Labelled) -> Labelled:
    threshold = unify(facts, gate, floor, "add")
    # sigmoid(0) is not zero, so the product is zero only where x is
    return unify(facts, x, threshold.nonzero(), "mul")


for group in planc.analyze(graph).groups:
    print(f"{group.name}: {group.size} {group.kind}")
    for member in group.members:
        print(f"  {member.tensor}, dimension {member.dim}")

# the proof that the rule is right: outputs against those of the masked original
plan = planc.compile(model, batch, ratio=0.5)
smaller = planc.apply(plan, model)
report = planc.verify(plan, model, smaller, batch)
assert report.error is not None
print(report)
