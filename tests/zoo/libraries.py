"""Models of libraries whose modules keep something of a run: caches, counters, remembered shapes,
sizes that a helper has memorised. Each is small and random, with the arguments of one call.

A model belongs to the table of its library, ``library:name``; ``pip install -e '.[libraries]'``
brings the libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """``make`` builds the model, ``call`` the arguments for a batch; ``train`` says that the model
    is pruned in training mode.
    """

    make: Callable[[], nn.Module]
    call: Callable[[int], Arguments]
    train: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of compile


def image(size: int, channels: int = 3) -> Callable[[int], Arguments]:
    """A batch of square images."""
    return lambda batch: ((torch.randn(batch, channels, size, size),), {})


def volume(*size: int, channels: int = 1) -> Callable[[int], Arguments]:
    """A batch of volumes."""
    return lambda batch: ((torch.randn(batch, channels, *size),), {})


# -- ultralytics -----------------------------------------------------------------------------------


def yolo(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from ultralytics.nn import tasks

        kind = tasks.RTDETRDetectionModel if "detr" in name else tasks.DetectionModel
        return kind(f"{name}.yaml", ch=3, nc=4, verbose=False)  # type: ignore[no-any-return]

    return make


# -- vit-pytorch -----------------------------------------------------------------------------------

_VIT = {"image_size": 32, "num_classes": 5, "dim": 48, "depth": 2, "heads": 4, "mlp_dim": 64}


def vit(module: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from importlib import import_module

        kind = getattr(import_module(f"vit_pytorch.{module}"), name)
        return kind(**options)  # type: ignore[no-any-return]

    return make


# -- monai -----------------------------------------------------------------------------------------


def monai(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(**options)  # type: ignore[no-any-return]

    return make


# -- openai-whisper --------------------------------------------------------------------------------


def whisper() -> nn.Module:
    from whisper.model import ModelDimensions, Whisper

    sizes = {"n_mels": 8, "n_audio_ctx": 24, "n_audio_state": 32, "n_audio_head": 4}
    text = {"n_vocab": 40, "n_text_ctx": 16, "n_text_state": 32, "n_text_head": 4}
    model = Whisper(ModelDimensions(**sizes, n_audio_layer=2, **text, n_text_layer=2))
    nn.init.normal_(model.decoder.positional_embedding)  # the library leaves memory as it is
    return model


def speech(batch: int) -> Arguments:
    return (torch.randn(batch, 8, 48), torch.randint(40, (batch, 6))), {}


# -- einops ----------------------------------------------------------------------------------------


def mixer() -> nn.Module:
    from einops.layers.torch import EinMix, Rearrange, Reduce

    return nn.Sequential(
        Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4),
        nn.Linear(48, 32),
        nn.LayerNorm(32),
        EinMix("b t c -> b t d", weight_shape="c d", bias_shape="d", c=32, d=64),
        nn.GELU(),
        Rearrange("b t (heads d) -> b heads t d", heads=4),
        Rearrange("b heads t d -> b t (heads d)"),
        nn.Linear(64, 32),
        Reduce("b t c -> b c", "mean"),
        nn.Linear(32, 5),
    )


class Attention(nn.Module):
    """Attention in the notation of einops' functions."""

    def __init__(self, dim: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Linear(8, dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from einops import einsum, rearrange, reduce, repeat

        qkv = self.to_qkv(self.stem(x))
        q, k, v = rearrange(qkv, "b t (three h d) -> three b h t d", three=3, h=self.heads)
        weights = einsum(q, k, "b h i d, b h j d -> b h i j").softmax(-1)
        mixed = rearrange(weights @ v, "b h t d -> b t (h d)")
        pooled = repeat(reduce(mixed, "b t c -> b c", "mean"), "b c -> b t c", t=x.shape[1])
        return self.to_out(mixed + pooled)


def tokens(batch: int) -> Arguments:
    return (torch.randn(batch, 7, 8),), {}


# -- segmentation-models-pytorch, diffusers, torch_geometric, open_clip ----------------------------


def segmentation(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import segmentation_models_pytorch as smp

        kind = getattr(smp, name)
        return kind("resnet18", encoder_weights=None, classes=3)  # type: ignore[no-any-return]

    return make


def diffusion(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import diffusers

        return getattr(diffusers, name)(**options)  # type: ignore[no-any-return]

    return make


_UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def noised(batch: int) -> Arguments:
    return (torch.randn(batch, 3, 16, 16), torch.tensor(5)), {"return_dict": False}


def conditioned(batch: int) -> Arguments:
    text = torch.randn(batch, 4, 16)
    return (torch.randn(batch, 3, 16, 16), torch.tensor(5), text), {"return_dict": False}


def graph(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torch_geometric.nn import models

        return getattr(models, name)(6, 16, 2, 4)  # type: ignore[no-any-return]

    return make


def nodes(batch: int) -> Arguments:
    generator = torch.Generator().manual_seed(0)
    count = 10 * batch
    return (torch.randn(count, 6), torch.randint(count, (2, 3 * count), generator=generator)), {}


def clip() -> nn.Module:
    from open_clip.model import CLIP

    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 4, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8}
    return CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)


def captions(batch: int) -> Arguments:
    return (torch.randn(batch, 3, 32, 32), torch.randint(1, 50, (batch, 8))), {}


_UNETR = {"in_channels": 1, "out_channels": 2, "img_size": (32, 32, 32), "feature_size": 8}
_SIZES = {"hidden_size": 48, "mlp_dim": 64, "num_heads": 4}
_KERNELS = {"kernel_size": (3, 3, 3), "strides": (1, 2, 2), "upsample_kernel_size": (2, 2)}
_UNET3 = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}

TABLE: dict[str, Entry] = {
    "ultralytics:yolov8n": Entry(yolo("yolov8n"), image(64)),
    "ultralytics:yolo11n": Entry(yolo("yolo11n"), image(64)),
    "ultralytics:rtdetr": Entry(yolo("rtdetr-resnet50"), image(64)),
    "vit_pytorch:vit": Entry(vit("vit", "ViT", patch_size=8, **_VIT), image(32)),
    "vit_pytorch:simple_vit": Entry(
        vit("simple_vit", "SimpleViT", patch_size=8, **_VIT), image(32)
    ),
    "vit_pytorch:deepvit": Entry(vit("deepvit", "DeepViT", patch_size=8, **_VIT), image(32)),
    "vit_pytorch:cait": Entry(vit("cait", "CaiT", patch_size=8, cls_depth=1, **_VIT), image(32)),
    "vit_pytorch:pit": Entry(
        vit("pit", "PiT", patch_size=8, **(_VIT | {"depth": (1, 1), "dim_head": 12})), image(32)
    ),
    "vit_pytorch:nest": Entry(
        vit(
            "nest",
            "NesT",
            image_size=32,
            patch_size=4,
            dim=24,
            heads=3,
            num_hierarchies=2,
            block_repeats=(1, 1),
            num_classes=5,
        ),
        image(32),
    ),
    "vit_pytorch:cct": Entry(
        vit(
            "cct",
            "CCT",
            img_size=32,
            embedding_dim=48,
            num_layers=2,
            num_heads=4,
            num_classes=5,
            kernel_size=3,
            stride=2,
            padding=1,
        ),
        image(32),
    ),
    "monai:unetr": Entry(monai("UNETR", **_UNETR, **_SIZES), volume(32, 32, 32)),
    "monai:dynunet": Entry(
        monai("DynUNet", **_UNET3, **_KERNELS, deep_supervision=True, deep_supr_num=1),
        volume(16, 16, 16),
        train=True,
    ),
    "monai:unet": Entry(
        monai("UNet", **_UNET3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
        volume(16, 16, 16),
    ),
    "monai:segresnet": Entry(
        monai("SegResNet", spatial_dims=2, init_filters=8, in_channels=1, out_channels=2),
        volume(32, 32),
    ),
    "monai:swinunetr": Entry(
        monai(
            "SwinUNETR",
            in_channels=1,
            out_channels=2,
            feature_size=12,
            spatial_dims=2,
            depths=(1, 1, 1, 1),
            num_heads=(1, 2, 4, 4),
        ),
        volume(64, 64),
    ),
    "whisper:tiny": Entry(whisper, speech),
    "einops:mixer": Entry(mixer, image(16)),
    "einops:attention": Entry(Attention, tokens),
    "segmentation_models_pytorch:unet": Entry(segmentation("Unet"), image(64)),
    "segmentation_models_pytorch:fpn": Entry(segmentation("FPN"), image(64)),
    "segmentation_models_pytorch:deeplab": Entry(segmentation("DeepLabV3Plus"), image(64)),
    "diffusers:unet": Entry(
        diffusion(
            "UNet2DModel",
            **_UNET,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ),
        noised,
    ),
    "diffusers:conditioned": Entry(
        diffusion(
            "UNet2DConditionModel",
            **_UNET,
            in_channels=3,
            out_channels=3,
            cross_attention_dim=16,
            attention_head_dim=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        conditioned,
    ),
    "torch_geometric:gcn": Entry(graph("GCN"), nodes),
    "torch_geometric:sage": Entry(graph("GraphSAGE"), nodes),
    "torch_geometric:gin": Entry(graph("GIN"), nodes),
    "open_clip:clip": Entry(clip, captions),
}
