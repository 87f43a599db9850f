"""Small models, one for each thing that is hard to prune, with inputs. Parameters and statistics
are random, so that a wrong index shows in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Inputs = tuple[torch.Tensor, ...]


class Residual(nn.Module):
    """Two blocks on a residual stream, the second narrower inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, inner, 3, padding=1, bias=False),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Conv2d(inner, 8, 1),
                nn.BatchNorm2d(8),
            )
            for inner in (6, 4)
        )
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Grouped(nn.Module):
    """A grouped convolution, each of whose groups has channels of its own to lose."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 12, 3, groups=3, padding=1)
        self.last = nn.Conv2d(12, 6, 1, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(images)))
        x = self.last(functional.relu(self.grouped(x)))
        return self.head(functional.relu(x).mean((2, 3)))


class Depthwise(nn.Module):
    """An inverted residual with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.project = nn.Conv2d(8, 6, 1)
        self.prelu = nn.PReLU(6)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.norm(self.depthwise(self.expand(images))))
        scale = self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.head(self.prelu(self.project(x * scale.sigmoid())))


class Dense(nn.Module):
    """Concatenated growths, and a flattened map before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.one = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.two = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3, padding=1))
        self.head = nn.Linear(14 * 4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        return self.head(functional.adaptive_max_pool2d(x, 2).flatten(1))


class Up(nn.Module):
    """A small U-net: transposed convolution, skip connection, group norm on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 2, stride=2)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.skip = nn.Conv2d(3, 4, 1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.inner(functional.relu(self.down(images))))
        return self.out(torch.cat([self.up(x), self.skip(images)], 1))


class Tied(nn.Module):
    """The embedding is the decoder too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.decode = nn.Linear(8, 7)
        self.decode.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.decode(x + self.mlp(x))


class Shared(nn.Module):
    """One layer is called twice, one parameter is frozen, one buffer is not saved."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.twice = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.ones(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        x = functional.relu(self.twice(functional.relu(self.twice(x))))
        return self.last(x * self.scale)


class Attention(nn.Module):
    """Queries, keys and values of widths of their own, so that heads may go on their own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 4, 3
        self.queries = nn.Linear(8, 12)
        self.keys = nn.Linear(8, 12)
        self.values = nn.Linear(8, 12)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length = x.shape[:2]
        q, k, v = (
            layer(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        mixed = torch.softmax(q @ k.transpose(-2, -1), -1) @ v
        return self.head(self.out(mixed.transpose(1, 2).reshape(batch, length, -1)))


@dataclass
class Answer:
    """What :class:`Several` returns."""

    logits: torch.Tensor
    hidden: dict[str, tuple[torch.Tensor, ...]]
    name: str = "several"


class Several(nn.Module):
    """Several inputs, one of them by keyword, and a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 8)
        self.right = nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)
        self.side = nn.Linear(8, 2)

    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], *, bias: torch.Tensor, double: bool = False
    ) -> Answer:
        x = functional.relu(self.left(pair[0]) + self.right(pair[1]))
        logits = self.out(x) + bias
        return Answer(logits * 2 if double else logits, {"side": (self.side(x), self.out(x))})


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12,
        num_classes=3,
    )  # fmt: skip


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[1, 1], num_heads=[2, 4], window_size=[2, 2],
        num_classes=3, stochastic_depth_prob=0.0,
    )  # fmt: skip


class Shuffle(nn.Module):
    """Blocks that split the stream in half, keep one half, and shuffle the two."""

    def __init__(self) -> None:
        from torchvision.models.shufflenetv2 import InvertedResidual

        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(InvertedResidual(6, 8, 2), InvertedResidual(8, 8, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def images(batch: int = 2, size: int = 8) -> Inputs:
    return (torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)),)


def vectors(*shape: int) -> Inputs:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(1)),)


def tokens() -> Inputs:
    return (torch.arange(10).reshape(2, 5) % 7,)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "residual": (Residual, images),
    "grouped": (Grouped, images),
    "depthwise": (Depthwise, images),
    "dense": (Dense, images),
    "up": (Up, images),
    "tied": (Tied, tokens),
    "shared": (Shared, lambda: vectors(4, 5)),
    "attention": (Attention, lambda: vectors(2, 4, 8)),
    "vit": (vit, lambda: images(1)),
    "swin": (swin, images),
    "shuffle": (Shuffle, images),
}
MIXING = {"vit", "swin"}
"""Models with groups for which removing is not zeroing."""


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Module, Inputs]:
    """A model in eval mode with random weights, and inputs for it, on one thread."""
    torch.set_num_threads(1)
    kind, make = MODELS[name]
    model = randomised(kind(), seed).to(dtype)
    return model, tuple(x.to(dtype) if x.is_floating_point() else x for x in make())


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with random parameters and buffers, positive where they must be."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                scale = 0.5 if tensor.dim() < 2 else tensor[0].numel() ** -0.5
                tensor.normal_(generator=generator).mul_(scale)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
        for name, tensor in model.named_buffers():
            if name == "scale":
                tensor.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def several_call() -> tuple[Any, dict[str, Any]]:
    """Arguments for :class:`Several`."""
    drawn = torch.Generator().manual_seed(1)
    pair = torch.randn(2, 4, generator=drawn), torch.randn(2, 6, generator=drawn)
    return (pair,), {"bias": torch.randn(3, generator=drawn), "double": True}


def contents(model: nn.Module) -> dict[str, Any]:
    """Every bit and every mark of a model's tensors, its attributes, and its mode."""
    found: dict[str, Any] = {}
    for kind, tensors in (
        ("parameter", model.named_parameters(remove_duplicate=False)),
        ("buffer", model.named_buffers(remove_duplicate=False)),
    ):
        for name, tensor in tensors:
            plain = tensor.detach()
            bits = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[name] = (kind, bits, tuple(plain.shape), plain.stride(), plain.dtype,
                           tensor.requires_grad)  # fmt: skip
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            plain = type(value) in (int, bool, str, float, tuple, list, torch.Size)
            if plain and name != "_flat_weight_refs":  # of an LSTM: its text has addresses
                found[f"{path}.{name}"] = repr(value)
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        found[f"{path} hooks"] = tuple(map(len, hooks))
    return found


def storages(model: nn.Module) -> set[int]:
    """Where the memory of a model's tensors begins."""
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
