"""An operator of one's own, and the rule that tells planc what it does to channels.

python examples/own_operator.py
"""

import torch
from torch import Tensor, nn

import planc
from planc.rules import Facts, Labelled, unify


@torch.library.custom_op("examples::gated", mutates_args=())
def gated(x: Tensor, gate: Tensor, floor: Tensor) -> Tensor:
    """x * sigmoid(gate - floor), where ``floor`` has one number for each channel."""
    return x * torch.sigmoid(gate - floor)


@gated.register_fake
def _(x: Tensor, gate: Tensor, floor: Tensor) -> Tensor:
    return torch.empty_like(x)  # what tracing needs: the shape of the result, nothing computed


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

# without a rule the operator pins what it touches, and `strict` says which one it is
graph = planc.trace(model, batch)
assert not planc.analyze(graph).groups
try:
    planc.analyze(graph, strict=True)
except planc.AnalysisError as error:
    print(error)


# A rule has the operator's parameters after the facts it writes to. Tensors arrive as labels on
# their coordinates, the result is labelled by the algebra of planc.rules.labels: `unify` aligns two
# operands as broadcasting does and ties what is removed together.
@planc.rule("examples.gated")
def gated_rule(cx: Facts, x: Labelled, gate: Labelled, floor: Labelled) -> Labelled:
    threshold = unify(cx, gate, floor, "add")
    # a sigmoid of zero is not zero, so only x can make a product that is
    return unify(cx, x, threshold.nonzero(), "mul")


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
