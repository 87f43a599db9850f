"""Models of images and videos: classifiers, detectors, and what segments or measures depth."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers.entry import Entry
from tests.zoo.transformers.inputs import images, normal

LABELS = {"num_labels": 5}
VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
_HEADS = {"num_attention_heads": [1, 2, 3, 4]}
_RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
}
_DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": {"model_type": "resnet", "out_features": ["stage4"], **_RESNET},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 6,
}


def _classifier(family: str, /, size: int = 32, **options: Any) -> Entry:
    architecture, configuration = f"{family}ForImageClassification", f"{family}Config"
    return Entry(architecture, configuration, options | LABELS, images(size))


def _detector(family: str, /, **options: Any) -> Entry:
    architecture, configuration = f"{family}ForObjectDetection", f"{family}Config"
    return Entry(architecture, configuration, options | LABELS, images(64))


IMAGES: dict[str, Entry] = {
    "beit": _classifier("Beit", **VIT, use_relative_position_bias=True, layer_scale_init_value=0.1),
    "bit": _classifier(
        "Bit", embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], num_groups=4
    ),
    "convnext": _classifier("ConvNext", **_STAGES),
    "convnextv2": _classifier("ConvNextV2", **_STAGES),
    "cvt": _classifier("Cvt", 64, embed_dim=[8, 16, 32], num_heads=[1, 2, 4], depth=[1, 2, 3]),
    "data2vec_vision": _classifier("Data2VecVision", **VIT, use_shared_relative_position_bias=True),
    "deit": _classifier("DeiT", **VIT),
    "dinov2": _classifier("Dinov2", **VIT, mlp_ratio=2),
    "dinov2_swiglu": _classifier("Dinov2", **VIT, mlp_ratio=2, use_swiglu_ffn=True),
    "dinov3_vit": Entry(
        "DINOv3ViTModel", "DINOv3ViTConfig", VIT | {"num_register_tokens": 2}, images()
    ),
    "efficientnet": _classifier(
        "EfficientNet", 64, width_coefficient=0.5, depth_coefficient=0.2, hidden_dim=640
    ),
    "focalnet": _classifier(
        "FocalNet",
        image_size=32,
        embed_dim=16,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    "hiera": _classifier(
        "Hiera",
        image_size=[32, 32],
        embed_dim=16,
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, False],
        num_query_pool=1,
        mlp_ratio=2.0,
    ),
    "levit": _classifier(
        "Levit",
        64,
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
    ),
    "mobilenet_v1": _classifier("MobileNetV1", depth_multiplier=0.25),
    "mobilenet_v2": _classifier("MobileNetV2", depth_multiplier=0.35),
    "mobilevit": _classifier(
        "MobileViT",
        64,
        image_size=64,
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 40],
    ),
    "mobilevitv2": _classifier(
        "MobileViTV2", 64, image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1]
    ),
    "poolformer": _classifier("PoolFormer", 64, **_STAGES, mlp_ratio=2.0),
    "pvt": _classifier(
        "Pvt",
        64,
        image_size=64,
        **_STAGES,
        **_HEADS,
        sequence_reduction_ratios=[4, 2, 2, 1],
        mlp_ratios=[2, 2, 2, 2],
    ),
    "pvt_v2": _classifier("PvtV2", 64, image_size=64, **_STAGES, **_HEADS, mlp_ratios=[2, 2, 2, 2]),
    "regnet": _classifier("RegNet", **_RESNET, groups_width=8),
    "resnet": _classifier("ResNet", **_RESNET),
    "swiftformer": _classifier(
        "SwiftFormer", 64, depths=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32], mlp_ratio=2
    ),
    "swin": _classifier("Swin", **_SWIN),
    "swinv2": _classifier("Swinv2", **_SWIN),
    "vit": _classifier("ViT", **VIT),
    "vit_mae": Entry(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        VIT
        | {
            "decoder_hidden_size": 24,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 4,
            "decoder_intermediate_size": 32,
        },
        images(),
    ),
    "vit_msn": _classifier("ViTMSN", **VIT),
    "conditional_detr": _detector("ConditionalDetr", **_DETR),
    "deformable_detr": _detector(
        "DeformableDetr",
        **_DETR
        | {
            "backbone_config": {
                "model_type": "resnet",
                "out_features": ["stage2", "stage3", "stage4"],
                **_RESNET,
            },
            "num_feature_levels": 3,
        },
    ),
    "detr": _detector("Detr", **_DETR),
    "yolos": _detector("Yolos", **VIT | {"image_size": [64, 64]}, num_detection_tokens=4),
    "dpt": Entry(
        "DPTForDepthEstimation",
        "DPTConfig",
        VIT
        | {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 16, 24, 32],
            "fusion_hidden_size": 16,
        },
        images(),
    ),
    "glpn": Entry(
        "GLPNForDepthEstimation",
        "GLPNConfig",
        {**_STAGES, **_HEADS, "sr_ratios": [4, 2, 2, 1], "decoder_hidden_size": 16},
        images(64),
    ),
    "sam": Entry(
        "SamModel",
        "SamConfig",
        {
            "vision_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": 64,
                "patch_size": 16,
                "output_channels": 32,
                "mlp_dim": 48,
                "window_size": 2,
                "global_attn_indexes": [1],
                "num_pos_feats": 16,
            },
            "prompt_encoder_config": {
                "hidden_size": 32,
                "image_size": 64,
                "patch_size": 16,
                "mask_input_channels": 8,
                "image_embedding_size": 4,
            },
            "mask_decoder_config": {
                "hidden_size": 32,
                "mlp_dim": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 16,
            },
        },
        images(64),
    ),
    "segformer": Entry(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {**_STAGES, **_HEADS, "sr_ratios": [4, 2, 2, 1], "decoder_hidden_size": 16, **LABELS},
        images(64),
    ),
    "upernet": Entry(
        "UperNetForSemanticSegmentation",
        "UperNetConfig",
        {
            "backbone_config": {
                "model_type": "convnext",
                **_STAGES,
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
            "hidden_size": 16,
            "auxiliary_in_channels": 24,
            "auxiliary_channels": 16,
            **LABELS,
        },
        images(64),
    ),
    "timesformer": Entry(
        "TimesformerForVideoClassification",
        "TimesformerConfig",
        {**VIT, "num_frames": 2, **LABELS},
        normal("pixel_values", 2, 3, 32, 32),
    ),
    "videomae": Entry(
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        {**VIT, "num_frames": 4, "tubelet_size": 2, **LABELS},
        normal("pixel_values", 4, 3, 32, 32),
    ),
    "vivit": Entry(
        "VivitForVideoClassification",
        "VivitConfig",
        {**VIT, "num_frames": 4, "tubelet_size": [2, 8, 8], **LABELS},
        normal("pixel_values", 4, 3, 32, 32),
    ),
}
