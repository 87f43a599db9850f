"""A model of your own, from training to deployment, with its accuracy on scikit-learn's digits.

python examples/digits.py
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

import planc

_DIGITS = load_digits()
images, _test_images, labels, _test_labels = train_test_split(
    torch.tensor(_DIGITS.images, dtype=torch.float32).unsqueeze(1) / 16,
    torch.tensor(_DIGITS.target),
    test_size=0.4,
    random_state=0,
)


class Net(nn.Module):
    """Two convolutions with a shortcut, and a classifier, for digits of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.fc1, self.fc2 = nn.Linear(32 * 16, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(x + self.bn2(self.conv2(x)))
        hidden = functional.relu(self.fc1(functional.max_pool2d(x, 2).flatten(1)))
        logits: torch.Tensor = self.fc2(hidden)
        return logits


def train(model: nn.Module, epochs: int, rate: float = 2e-3) -> None:
    """Train on the training digits, and leave the model in eval mode."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()


def accuracy(model: nn.Module) -> float:
    """Return the share of recognised test digits."""
    with torch.no_grad():
        return float((model(_test_images).argmax(1) == _test_labels).float().mean())


def main() -> None:
    """Train, prune to a fifth of the MACs, fine-tune, save, and load into a fresh model."""
    torch.manual_seed(0)
    model = Net()
    train(model, epochs=8)
    show("trained", model)
    plan = planc.compile(model, images[:1], macs=0.2)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, images[:64])
    show("pruned", smaller)
    train(smaller, epochs=4)
    show("fine-tuned", smaller)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "smaller.safetensors"
        planc.save(file, smaller, plan)
        show("loaded again", planc.load(file, Net()).eval())


def show(step: str, model: nn.Module) -> None:
    """Print a line: accuracy on the test digits, and the number of parameters."""
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{step:12}  accuracy {accuracy(model):.1%}, {count:,} parameters")


if __name__ == "__main__":
    main()
