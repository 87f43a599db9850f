"""A module whose inside planc cannot see, and the rule that says what its parameters do.

python examples/own_leaf_module.py
"""

import numpy as np
import torch
from torch import Tensor, nn

import planc
from planc.rules import Facts, Labelled, unify


class Envelope(nn.Module):
    """Smooths each channel over time with a decay of its own, in NumPy, as old code does."""

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


# A rule for a module class makes its modules leaves: they are called, never looked into. After the
# facts it has the arguments of `forward`, then by keyword those of the module's parameters, buffers
# and integer attributes that it wants. `meta` gives the shape of the result; without it the model
# would be traced on real tensors.
@planc.rule(Envelope, meta=lambda module, x: torch.empty_like(x))
def envelope_rule(
    cx: Facts, x: Labelled, *, decay: Labelled, gain: Labelled, channels: int
) -> Labelled:
    # a channel that is zero stays zero at every step, whatever its decay
    y = unify(cx, unify(cx, x, decay, "mul"), gain, "mul")
    cx.demand("channels", None, y, y.rank - 1)  # the attribute follows the width
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
