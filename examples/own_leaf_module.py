"""A rule for the parameters of a module opaque to planc.

python examples/own_leaf_module.py
"""

import numpy as np
import torch
from torch import Tensor, nn

import planc
from planc.rules import Facts, Labelled, unify


class Envelope(nn.Module):
    """Smooth each channel over time with its own decay, in NumPy."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.decay = nn.Parameter(torch.rand(channels), requires_grad=False)
        self.gain = nn.Parameter(torch.randn(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        signal, decay = x.detach().numpy(), self.decay.numpy()
        state = np.zeros((len(signal), self.channels), dtype=signal.dtype)
        steps = []
        for t in range(signal.shape[1]):
            state = decay * state + (1 - decay) * signal[:, t]
            steps.append(state)
        return torch.from_numpy(np.stack(steps, 1)) * self.gain


class Listener(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.envelope, self.down = nn.Linear(8, 32), Envelope(32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.envelope(self.up(x).relu()))
        return y


# A rule for a module class makes its modules leaves, called but not traced into. After the facts,
# its parameters are the arguments of `forward`, then by keyword any of the module's parameters,
# buffers and integer attributes. `meta` gives the shape of the result; without it the model is
# traced on real tensors.
@planc.rule(Envelope, meta=lambda module, x: torch.empty_like(x))
def envelope_rule(
    facts: Facts, x: Labelled, *, decay: Labelled, gain: Labelled, channels: int
) -> Labelled:
    # a channel that is zero stays zero at every step, whatever its decay
    y = unify(facts, unify(facts, x, decay, "mul"), gain, "mul")
    facts.demand("channels", None, y, y.rank - 1)  # the attribute follows the width
    return y


torch.manual_seed(0)
model = Listener().eval()
batch = torch.randn(2, 5, 8)

for target in ("module", "graph"):
    plan = planc.compile(model, batch, ratio=0.5, target=target)
    smaller = planc.apply(plan, model)
    print(f"target {target}: {smaller.get_submodule('envelope')}")
    for change in plan.attributes:
        print(f"  {change}")
    report = planc.verify(plan, model, smaller, batch)
    assert report.error is not None
    print(report)
