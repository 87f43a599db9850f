"""Pruning in steps with fine-tuning in between, compared with one shot, on scikit-learn's digits.

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
    """Build a small ResNet for digits of 8 x 8."""
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


def digits() -> list[torch.Tensor]:
    """Return training and test images, then their labels."""
    found = load_digits()
    pixels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return train_test_split(pixels, torch.tensor(found.target), test_size=0.4, random_state=0)


IMAGES, TEST_IMAGES, LABELS, TEST_LABELS = digits()


def train(model: nn.Module, epochs: int, rate: float, seed: int = 0) -> None:
    """Train on the training digits; the learning rate decays to zero."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    images, labels = IMAGES.split(64), LABELS.split(64)
    steps = epochs * len(images)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for i in torch.randperm(len(images)).tolist():
            optimizer.zero_grad()
            functional.cross_entropy(model(images[i]), labels[i]).backward()
            optimizer.step()
            falling.step()
    model.eval()


def accuracy(model: nn.Module) -> float:
    """Return the share of recognised test digits."""
    with torch.no_grad():
        return float((model(TEST_IMAGES).argmax(1) == TEST_LABELS).float().mean())


def trained(seed: int = 0) -> nn.Module:
    """Return the trained network to prune."""
    torch.manual_seed(seed)
    model = resnet()
    train(model, epochs=8, rate=5e-3, seed=seed)
    return model


EPOCHS, RATE = 2, 2e-3  # of fine-tuning in each step; one shot gets as many epochs in all


def in_steps(original: nn.Module, schedule: planc.Schedule, file: Path) -> nn.Module:
    """Prune step by step. A restart needs the weights and the saved plan of all steps so far."""
    model, done = original, None
    while step := planc.next_step(schedule, model, IMAGES[:1], done):
        model, done = planc.apply(step.plan, model), step.total
        before = accuracy(model)
        train(model, EPOCHS, RATE)
        planc.save_plan(done, file)
        show(f"step {step.number}", done, before, accuracy(model))
    return model


def at_once(original: nn.Module, share: float, epochs: int) -> nn.Module:
    """Prune in one shot, then fine-tune."""
    plan = planc.compile(original, IMAGES[:1], macs=share)
    model = planc.apply(plan, original)
    before = accuracy(model)
    train(model, epochs, RATE)
    show("one shot", plan, before, accuracy(model))
    return model


def show(step: str, plan: planc.Plan, before: float, after: float) -> None:
    """Print a line: MACs left, accuracy before and after fine-tuning."""
    left = plan.cost_after.macs / plan.cost_before.macs
    print(f"  {step}: {left:.2%} of the MACs, accuracy {before:.2%}, fine-tuned {after:.2%}")


def main() -> None:
    """Prune to a half and to a quarter of the MACs, both ways."""
    original = trained()
    print(f"original: accuracy {accuracy(original):.2%}")
    for share, steps in ((0.5, 3), (0.25, 4)):
        print(f"\nto {share:.0%} of the MACs")
        schedule = planc.Schedule(macs=share, steps=steps)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pruned.planc"
            model = in_steps(original, schedule, file)
            # after a crash, the plan file gives the structure, and no step is left
            done = planc.load_plan(file)
            again = planc.apply(done, original)
            again.load_state_dict(model.state_dict())
            assert planc.next_step(schedule, again, IMAGES[:1], done) is None
        at_once(original, share, EPOCHS * steps)


if __name__ == "__main__":
    main()
