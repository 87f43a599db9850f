"""Masks of torch.nn.utils.prune, mask plans, and structured masks turned into pruning plans.

python examples/masks.py
"""

import tempfile
from pathlib import Path

import torch
from torch.nn.utils import prune
from torchvision.models import resnet18

import planc
from planc import masks

torch.manual_seed(0)
model = resnet18().eval()
image = torch.randn(1, 3, 224, 224)


def parameters(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} parameters"


# 1. A mask plan: half of all weights by magnitude over the whole model, no layer above 80 %
plan = masks.select(model, masks.GlobalElements(0.5, largest=0.8))
sparse, removed = masks.apply(plan, model, keep_removed=True)
print(f"{plan.removed:,} of {plan.size:,} weights are zero in the masked model")
again = masks.restore(plan, sparse, removed)
equal = all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
print("restored bit for bit:", equal)

# It is saved as a bit per weight, and compared with other plans: 2:4 by the same criterion
structured = masks.select(model, masks.NofM(2, 4), keep=("conv1",))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "half.masks"
    planc.save_masks(plan, path)
    assert planc.load_masks(path) == plan
    print(f"the file has {path.stat().st_size:,} bytes")
difference = planc.diff(plan, structured)
print(f"2:4 removes {(structured - plan).removed:,} other weights", bool(difference))

# 2. As hooks, the masks stay while the model is trained; bake folds them in
hooked = masks.attach(structured, model).train()
optimiser = torch.optim.SGD(hooked.parameters(), lr=0.01)
hooked(image.repeat(2, 1, 1, 1)).square().mean().backward()
optimiser.step()
baked = planc.bake(hooked.eval())
zeros = sum(int((p == 0).sum()) for p in baked.parameters() if p.dim() > 1)
print(f"after a step of training {zeros:,} weights are still zero")

# 3. A model with masks is pruned like any other: the masks are cut with the weights
smaller = planc.apply(planc.compile(hooked, image, ratio=0.5), hooked)
print(f"{parameters(hooked)} before, {parameters(smaller)} after, with all hooks")

# 4. Structured masks of torch.nn.utils.prune become a plan: half of a block's inner channels are
# masked in their convolution, and in the norm after it
for block in (block for layer in (model.layer1, model.layer2) for block in layer):
    prune.ln_structured(block.conv1, "weight", 0.5, n=2, dim=0)
    kept = block.conv1.weight_mask[:, 0, 0, 0]
    for name in ("weight", "bias"):
        prune.custom_from_mask(block.bn1, name, kept)
prune.ln_structured(model.layer3[0].conv1, "weight", 0.5, n=2, dim=0)  # its norm adds a constant
with torch.no_grad():
    model.layer3[0].bn1.bias.fill_(0.1)
found = planc.from_masks(model, image)
print(found)
smaller = planc.apply(found.plan, model)
print(planc.verify(found.plan, model, smaller, image))
with torch.no_grad():
    error = (smaller(image) - model(image)).abs().max() / model(image).abs().max()
print(f"{parameters(planc.bake(smaller))}; outputs differ by {float(error):.1e} relative")
