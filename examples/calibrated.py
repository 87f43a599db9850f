"""Criteria that read gradients, compared with others on scikit-learn's digits.

python examples/calibrated.py
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

import planc
from planc.criteria import BatchNormScale, Fallback, Magnitude, Normalized, Reduced, Taylor

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
kept, held = train_test_split(torch.arange(len(labels)), random_state=0, stratify=labels)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1, stride=2),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 16, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
)


def accuracy(model: nn.Module) -> float:
    """Return the share of recognised held-out digits."""
    with torch.no_grad():
        return (model(images[held]).argmax(1) == labels[held]).float().mean().item()


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch of digits, given by their indices."""
    return functional.cross_entropy(model(images[batch]), labels[batch])


optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for _ in range(4):
    for batch in kept[torch.randperm(len(kept))].split(64):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
model.eval()

composed = Normalized(Reduced(Taylor("element", 1), "mean"), "max")
slimming = Fallback(BatchNormScale(), Magnitude(2))  # one of the layers has no batch norm

# one pass for several criteria; the model is unchanged, the statistics can be saved
statistics = planc.calibrate(model, kept.split(32), ["taylor", composed, "obd", "wanda"], loss)
with tempfile.TemporaryDirectory() as folder:
    planc.save_statistics(statistics, Path(folder) / "digits.safetensors")
    statistics = planc.load_statistics(Path(folder) / "digits.safetensors")
print(f"calibrated: {statistics}")
print(f"before: {accuracy(model):.3f}")

# accuracy after pruning by each criterion at one ratio, without fine-tuning
for criterion in ["random", "l2", "lamp", slimming, "wanda", "taylor", "obd", composed]:
    plan = planc.compile(model, images[:1], criterion=criterion, statistics=statistics, ratio=0.3)
    smaller = planc.apply(plan, model)
    share = plan.cost_after.macs / plan.cost_before.macs
    print(f"{plan.provenance[0].criterion:55} {share:.0%} of MACs: {accuracy(smaller):.3f}")
