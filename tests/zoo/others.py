"""More small random models of the libraries in :mod:`tests.zoo.libraries`, for
``python -m tests.scripts.libraries``: none of them is in the zoos.
"""

from __future__ import annotations

from tests.zoo.libraries import (
    Entry,
    diffusion,
    graph,
    image,
    monai,
    nodes,
    segmentation,
    vit,
    volume,
    yolo,
)

_VIT = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 48, "depth": 2, "heads": 4}
_MLP = _VIT | {"mlp_dim": 64}
_FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}

OTHERS: dict[str, Entry] = {
    **{
        f"ultralytics:{name}": Entry(yolo(name), image(64))
        for name in ("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n-p2", "yolov9t", "yolov10n")
    },
    **{
        f"segmentation_models_pytorch:{name.lower()}": Entry(segmentation(name), image(64))
        for name in ("UnetPlusPlus", "Linknet", "PSPNet", "PAN", "MAnet", "UPerNet", "DeepLabV3")
    },
    **{
        f"vit_pytorch:{module}": Entry(vit(module, name, **_MLP), image(32))
        for module, name in {
            "parallel_vit": "ViT",
            "vit_for_small_dataset": "ViT",
            "vit_with_patch_dropout": "ViT",
            "vit_with_patch_merger": "ViT",
            "learnable_memory_vit": "ViT",
            "simple_flash_attn_vit": "SimpleViT",
            "simple_vit_with_patch_dropout": "SimpleViT",
            "simple_vit_with_qk_norm": "SimpleViT",
            "simple_vit_with_register_tokens": "SimpleViT",
            "simple_vit_with_value_residual": "SimpleViT",
            "normalized_vit": "nViT",
            "rvt": "RvT",
        }.items()
    },
    "vit_pytorch:simple_vit_with_fft": Entry(
        vit("simple_vit_with_fft", "SimpleViT", **_MLP, freq_patch_size=8), image(32)
    ),
    "vit_pytorch:xcit": Entry(
        vit("xcit", "XCiT", **_MLP, cls_depth=1, local_patch_kernel_size=3), image(32)
    ),
    "vit_pytorch:mobile_vit": Entry(
        vit(
            "mobile_vit",
            "MobileViT",
            image_size=(64, 64),
            dims=[24, 32, 40],
            channels=[8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 48],
            num_classes=5,
        ),
        image(64),
    ),
    "monai:attentionunet": Entry(
        monai("AttentionUnet", **_FLAT, channels=(8, 16, 32), strides=(2, 2)), image(32, 1)
    ),
    "monai:basicunet": Entry(
        monai("BasicUNet", **_FLAT, features=(8, 8, 16, 32, 64, 8)), image(32, 1)
    ),
    "monai:basicunetplusplus": Entry(
        monai("BasicUNetPlusPlus", **_FLAT, features=(8, 8, 16, 32, 64, 8)), image(32, 1)
    ),
    "monai:densenet": Entry(
        monai("DenseNet", **_FLAT, init_features=8, growth_rate=4, block_config=(2, 2)),
        image(32, 1),
    ),
    "monai:efficientnet": Entry(
        monai("EfficientNetBN", model_name="efficientnet-b0", spatial_dims=2, pretrained=False),
        image(64),
    ),
    "monai:highresnet": Entry(monai("HighResNet", **_FLAT), image(32, 1)),
    "monai:seresnet": Entry(
        monai("SEResNet50", spatial_dims=2, in_channels=3, num_classes=4), image(64)
    ),
    "monai:vnet": Entry(monai("VNet", spatial_dims=3, out_channels=2), volume(32, 32, 32)),
    "monai:flexibleunet": Entry(
        monai("FlexibleUNet", in_channels=3, out_channels=2, backbone="efficientnet-b0"), image(64)
    ),
    "monai:mednext": Entry(monai("MedNeXtS", **_FLAT, init_filters=8), image(64, 1)),
    "monai:autoencoder": Entry(
        monai("AutoEncoder", **_FLAT, channels=(8, 16, 32), strides=(2, 2, 2)), image(32, 1)
    ),
    "diffusers:autoencoder_kl": Entry(
        diffusion(
            "AutoencoderKL",
            block_out_channels=(16, 32),
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        ),
        lambda batch: (image(32)(batch)[0], {"return_dict": False}),
    ),
    "diffusers:autoencoder_tiny": Entry(
        diffusion(
            "AutoencoderTiny",
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
        lambda batch: (image(32)(batch)[0], {"return_dict": False}),
    ),
    **{f"torch_geometric:{name.lower()}": Entry(graph(name), nodes) for name in ("GAT", "EdgeCNN")},
}
