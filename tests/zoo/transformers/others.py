"""Models of sound, and of several things at once: texts, images, layouts, sound."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers.entry import VOCABULARY, Entry
from tests.zoo.transformers.images import LABELS, VIT
from tests.zoo.transformers.inputs import (
    IMAGE_TOKEN,
    boxes,
    captioned,
    images,
    normal,
    queries,
    together,
    tokens,
    transcription,
)

_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_TEXT: dict[str, Any] = {**_LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 16}
_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    **_LAYERS,
    "vocab_size": VOCABULARY,
    "num_key_value_heads": 2,
}
_WAV2VEC: dict[str, Any] = {
    **_LAYERS,
    "vocab_size": VOCABULARY,
    "conv_dim": (16, 16),
    "conv_kernel": (8, 4),
    "conv_stride": (4, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
_FRAMES = normal("input_features", 10, 16)
_WAVE = normal("input_values", 400)


def _transcriber(family: str, /, **options: Any) -> Entry:
    return Entry(f"{family}ForCTC", f"{family}Config", _WAV2VEC | options, _WAVE)


def _pair(family: str, /, inputs: Any = None, text: Any = None, **options: Any) -> Entry:
    """A model with a tower for texts and one for images."""
    towers = {"text_config": _TEXT | (text or {}), "vision_config": VIT}
    given = inputs or together(tokens(8), images())
    return Entry(
        f"{family}Model", f"{family}Config", towers | {"projection_dim": 16} | options, given
    )


OTHERS: dict[str, Entry] = {
    "audio_spectrogram_transformer": Entry(
        "ASTForAudioClassification",
        "ASTConfig",
        {
            **_LAYERS,
            "patch_size": 8,
            "max_length": 24,
            "num_mel_bins": 16,
            "frequency_stride": 8,
            "time_stride": 8,
            **LABELS,
        },
        normal("input_values", 24, 16),
    ),
    "hubert": _transcriber("Hubert"),
    "sew": _transcriber("SEW", squeeze_factor=2),
    "speech_to_text": Entry(
        "Speech2TextForConditionalGeneration",
        "Speech2TextConfig",
        {
            **_BART,
            "input_feat_per_channel": 16,
            "input_channels": 1,
            "conv_channels": 24,
            "max_source_positions": 64,
            "max_target_positions": 16,
        },
        transcription("input_features", 32, 16),
    ),
    "unispeech": _transcriber("UniSpeech", num_ctc_classes=VOCABULARY),
    "wav2vec2": _transcriber("Wav2Vec2"),
    "wav2vec2_stable": Entry(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {
            **_WAV2VEC,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "use_weighted_layer_sum": True,
            "classifier_proj_size": 16,
            **LABELS,
        },
        _WAVE,
    ),
    "wav2vec2_bert": Entry(
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertConfig",
        {
            **_LAYERS,
            "vocab_size": VOCABULARY,
            "feature_projection_input_dim": 16,
            "conv_depthwise_kernel_size": 3,
            "left_max_position_embeddings": 4,
            "right_max_position_embeddings": 4,
        },
        _FRAMES,
    ),
    "wav2vec2_conformer": _transcriber(
        "Wav2Vec2Conformer",
        position_embeddings_type="relative",
        conv_depthwise_kernel_size=3,
        max_source_positions=100,
    ),
    "wavlm": _transcriber("WavLM", num_buckets=16, max_bucket_distance=32),
    "whisper": Entry(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **_BART,
            "num_mel_bins": 16,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        transcription("input_features", 16, 32),
    ),
    "align": _pair(
        "Align",
        together(tokens(8), images(64)),
        vision_config={"width_coefficient": 0.5, "depth_coefficient": 0.2, "hidden_dim": 640},
        projection_dim=160,
    ),
    "altclip": _pair("AltCLIP", text={"project_dim": 16, "pad_token_id": 1}),
    "blip": Entry(
        "BlipForImageTextRetrieval",
        "BlipConfig",
        {
            "text_config": _TEXT | {"projection_dim": 16, "encoder_hidden_size": 32},
            "vision_config": VIT | {"projection_dim": 16},
            "projection_dim": 16,
            "image_text_hidden_size": 16,
        },
        together(tokens(8), images()),
    ),
    "blip_2": Entry(
        "Blip2ForConditionalGeneration",
        "Blip2Config",
        {
            "vision_config": VIT,
            "qformer_config": _TEXT | {"encoder_hidden_size": 32},
            "text_config": {
                "model_type": "opt",
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "ffn_dim": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
                "word_embed_proj_dim": 32,
            },
            "num_query_tokens": 4,
            "image_token_index": IMAGE_TOKEN,
        },
        captioned(32, places=4),
    ),
    "chinese_clip": _pair("ChineseCLIP"),
    "clip": _pair("CLIP", text={"eos_token_id": 2}),
    "clipseg": Entry(
        "CLIPSegForImageSegmentation",
        "CLIPSegConfig",
        {
            "text_config": _TEXT,
            "vision_config": VIT,
            "projection_dim": 16,
            "reduce_dim": 16,
            "extract_layers": [0, 1],
            "decoder_num_attention_heads": 4,
            "decoder_intermediate_size": 32,
        },
        together(tokens(8), images()),
    ),
    "flava": Entry(
        "FlavaModel",
        "FlavaConfig",
        {
            "text_config": _TEXT,
            "image_config": VIT,
            "multimodal_config": _LAYERS,
            "hidden_size": 32,
            "projection_dim": 16,
        },
        together(tokens(8), images()),
    ),
    "git": Entry(
        "GitForCausalLM",
        "GitConfig",
        {**_TEXT, "max_position_embeddings": 40, "vision_config": VIT},
        together(tokens(8), images()),
    ),
    "groupvit": _pair(
        "GroupViT",
        vision_config=VIT
        | {"depths": [1, 1, 1], "num_group_tokens": [4, 2, 0], "num_output_groups": [4, 2, 0]},
        projection_intermediate_dim=24,
    ),
    "layoutlmv3": Entry(
        "LayoutLMv3ForSequenceClassification",
        "LayoutLMv3Config",
        {
            **_TEXT,
            "max_position_embeddings": 40,
            "coordinate_size": 5,
            "shape_size": 6,
            "input_size": 32,
            "patch_size": 8,
            "max_2d_position_embeddings": 64,
            "rel_pos_bins": 8,
            "max_rel_pos": 16,
            "rel_2d_pos_bins": 8,
            "max_rel_2d_pos": 16,
            "pad_token_id": 1,
            **LABELS,
        },
        together(tokens(), boxes, images()),
    ),
    "llava": Entry(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": _LLAMA,
            "vision_config": {"model_type": "clip_vision_model", **VIT},
            "image_token_id": IMAGE_TOKEN,
            "vision_feature_layer": -1,
        },
        captioned(32, places=16),
    ),
    "lxmert": Entry(
        "LxmertModel",
        "LxmertConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "l_layers": 1,
            "x_layers": 1,
            "r_layers": 1,
            "visual_feat_dim": 24,
            "visual_pos_dim": 4,
            "max_position_embeddings": 16,
        },
        together(tokens(8), normal("visual_feats", 3, 24), normal("visual_pos", 3, 4)),
    ),
    "owlvit": Entry(
        "OwlViTForObjectDetection",
        "OwlViTConfig",
        {"text_config": _TEXT, "vision_config": VIT, "projection_dim": 32},
        queries,
    ),
    "paligemma": Entry(
        "PaliGemmaForConditionalGeneration",
        "PaliGemmaConfig",
        {
            "text_config": {**_LLAMA, "model_type": "gemma", "head_dim": 8},
            "vision_config": {
                "model_type": "siglip_vision_model",
                **VIT,
                "vision_use_head": False,
            },
            "image_token_id": IMAGE_TOKEN,
            "projection_dim": 32,
        },
        captioned(32, places=16),
    ),
    "siglip": Entry(
        "SiglipModel",
        "SiglipConfig",
        {"text_config": _TEXT, "vision_config": VIT},
        together(tokens(8), images()),
    ),
    "vilt": Entry(
        "ViltForQuestionAnswering",
        "ViltConfig",
        {**_TEXT, **VIT, "max_image_length": -1, **LABELS},
        together(tokens(8), images()),
    ),
    "visual_bert": Entry(
        "VisualBertForVisualReasoning",
        "VisualBertConfig",
        {**_TEXT, "visual_embedding_dim": 24, **LABELS},
        together(tokens(8), normal("visual_embeds", 3, 24)),
    ),
    "xclip": Entry(
        "XCLIPModel",
        "XCLIPConfig",
        {
            "text_config": _TEXT,
            "vision_config": VIT
            | {
                "mit_hidden_size": 32,
                "mit_intermediate_size": 48,
                "mit_num_hidden_layers": 1,
                "mit_num_attention_heads": 4,
                "num_frames": 2,
            },
            "projection_dim": 32,
            "prompt_layers": 1,
            "prompt_num_attention_heads": 4,
        },
        together(tokens(8), normal("pixel_values", 2, 3, 32, 32)),
    ),
}
