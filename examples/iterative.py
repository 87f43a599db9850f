"""Pruning in steps with fine-tuning in between, beside one shot, on scikit-learn's digits.

python examples/iterative.py
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

import planc


class Block(nn.Module):
    """Two convolutions on a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(inside)))


def resnet() -> nn.Sequential:
    """A small ResNet for digits of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 1),
        Block(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def train(model: nn.Module, epochs: int, rate: float) -> None:
    """Trains on the training digits, with the rate falling to zero."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = [part.split(64) for part in (images, labels)]
    steps = epochs * len(batches[0])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for i in torch.randperm(len(batches[0])).tolist():
            optimizer.zero_grad()
            functional.cross_entropy(model(batches[0][i]), batches[1][i]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def accuracy(model: nn.Module) -> float:
    """The share of the test digits that the model reads right."""
    with torch.no_grad():
        return float((model(test_images).argmax(1) == test_labels).float().mean())


digits = load_digits()
pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
split = train_test_split(pixels, torch.tensor(digits.target), test_size=0.4, random_state=0)
images, test_images, labels, test_labels = split

torch.manual_seed(0)
original = resnet()
train(original, epochs=8, rate=5e-3)
print(f"original: accuracy {accuracy(original):.2%}")

EPOCHS = 2  # of fine-tuning in each step; one shot gets as many in all
for share, steps in ((0.5, 3), (0.25, 4)):
    print(f"\nto {share:.0%} of the MACs")
    schedule = planc.Schedule(macs=share, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "pruned.planc"
        model, done = original, None
        while step := planc.next_step(schedule, model, images[:1], done):
            model, done = planc.apply(step.plan, model), step.total
            before = accuracy(model)
            train(model, EPOCHS, rate=2e-3)
            planc.save_plan(done, saved)  # with the weights, all that a restart needs
            left = done.cost_after.macs / done.cost_before.macs
            print(
                f"  step {step.number}: {left:.2%} of the MACs, accuracy {before:.2%}, "
                f"fine-tuned {accuracy(model):.2%}"
            )
        # after a crash: the structure comes from the plan file, the weights from a checkpoint
        again = planc.apply(planc.load_plan(saved), original)
        again.load_state_dict(model.state_dict())
        assert planc.next_step(schedule, again, images[:1], planc.load_plan(saved)) is None
    plan = planc.compile(original, images[:1], macs=share)
    shot = planc.apply(plan, original)
    before = accuracy(shot)
    train(shot, EPOCHS * steps, rate=2e-3)
    left = plan.cost_after.macs / plan.cost_before.macs
    print(
        f"  one shot: {left:.2%} of the MACs, accuracy {before:.2%}, fine-tuned {accuracy(shot):.2%}"
    )
