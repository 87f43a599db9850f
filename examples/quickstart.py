"""From a model to a smaller one, and back: compile, review, apply, verify, save, restore.

python examples/quickstart.py
"""

import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

import planc

torch.manual_seed(0)
model = resnet18().eval()
image = torch.randn(1, 3, 224, 224)

# 1. compile: the channels to remove, from every tensor, and the savings
plan = planc.compile(model, image, ratio=0.5)
print(f"{len(plan.groups)} groups; the first one:")
group = plan.groups[0]
print(f"  {group.name}: {len(group.removed)} of {group.size} {group.kind} go from:")
for member in group.members[:4]:
    print(f"    {member}")
before, after = plan.cost_before, plan.cost_after
print(f"MACs {before.macs:,} -> {after.macs:,}, parameters {before.params:,} -> {after.params:,}")

# 2. the plan is a file to review, diff and apply elsewhere
with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "resnet18.planc"
    planc.save_plan(plan, path)
    assert planc.load_plan(path) == plan
    print(f"the plan file has {path.stat().st_size:,} bytes")

# 3. apply: a new module of the same class; the old one is unchanged
smaller, removed = planc.apply(plan, model, keep_removed=True)
assert type(smaller) is type(model)
assert sum(p.numel() for p in smaller.parameters()) == after.params

# 4. verify: every tensor, shape and attribute, and the outputs against the masked original
print(planc.verify(plan, model, smaller, image))

# 5. restore: bit for bit
original = planc.restore(plan, smaller, removed)
for name, tensor in model.state_dict().items():
    assert torch.equal(tensor, original.state_dict()[name]), name
print("restored bit for bit")
