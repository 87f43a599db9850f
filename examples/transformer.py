"""Heads, dimensions inside heads, MLP widths and the residual stream of a vision transformer.

python examples/transformer.py
"""

import torch
from torchvision.models import VisionTransformer

import planc

torch.manual_seed(0)
model = VisionTransformer(
    image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128
).eval()
torch.nn.init.normal_(model.heads.head.weight)  # torchvision's is zero: a weak proof
image = torch.randn(1, 3, 32, 32)

analysis = planc.analyze(planc.trace(model, image))
for group in analysis.groups:
    print(f"{group.kind:10} {group}")

# the eager module takes its inner width from the residual stream, so kept heads times kept head
# dimension equals the kept stream: the plan obeys this and rewrites the attributes
plan = planc.compile(model, image, ratio=0.5)
smaller = planc.apply(plan, model)
for change in plan.attributes[:4]:
    print(change)
print(planc.verify(plan, model, smaller, image))

# the rewritten graph has no such constraint: half of the heads are removed, the stream stays whole
stream = analysis.groups[0].name
plan = planc.compile(model, image, ratio=0.25, kinds={"heads": 0.5}, keep=[stream], target="graph")
smaller = planc.apply(plan, model)  # a trainable torch.fx.GraphModule
report = planc.verify(plan, model, smaller, image)
assert report.error is not None
print(f"heads pruned in the graph; error against the masked original {report.error:.0e}")
smaller(image).sum().backward()
