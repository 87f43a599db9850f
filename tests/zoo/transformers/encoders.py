"""Encoders of text, and encoder-decoders, which write another text."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers.entry import VOCABULARY, Entry
from tests.zoo.transformers.inputs import tokens, translation

_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 5,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
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
    "max_position_embeddings": 40,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


def _classifier(family: str, /, **options: Any) -> Entry:
    """A classifier of texts, configured like BERT."""
    return Entry(f"{family}ForSequenceClassification", f"{family}Config", _BERT | options, tokens())


def _writer(family: str, common: dict[str, Any], /, **options: Any) -> Entry:
    architecture = f"{family}ForConditionalGeneration"
    return Entry(architecture, f"{family}Config", common | options, translation)


def _named(names: dict[str, str], **more: Any) -> dict[str, Any]:
    """BERT's options under the names that another family gives them; those called "" are left."""
    called = {names.get(name, name): value for name, value in _BERT.items()} | more
    return {name: value for name, value in called.items() if name}


ENCODERS: dict[str, Entry] = {
    "albert": _classifier("Albert", embedding_size=16),
    "bert": _classifier("Bert"),
    "bert_masked": Entry("BertForMaskedLM", "BertConfig", _BERT),
    "big_bird": _classifier("BigBird", attention_type="original_full"),
    "camembert": Entry("CamembertForMaskedLM", "CamembertConfig", _BERT | {"pad_token_id": 1}),
    "canine": Entry(
        "CanineForSequenceClassification",
        "CanineConfig",
        _BERT
        | {
            "max_position_embeddings": 64,
            "num_hash_buckets": 16,
            "num_hash_functions": 4,
            "local_transformer_stride": 8,
        },
        tokens(8),
    ),
    "convbert": _classifier("ConvBert", embedding_size=16, head_ratio=2, conv_kernel_size=3),
    "data2vec_text": _classifier("Data2VecText", pad_token_id=1),
    "deberta": _classifier(
        "Deberta",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    ),
    "deberta_v2": _classifier(
        "DebertaV2",
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
    ),
    "distilbert": Entry(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        _named(
            {
                "hidden_size": "dim",
                "num_hidden_layers": "n_layers",
                "num_attention_heads": "n_heads",
                "intermediate_size": "hidden_dim",
            }
        ),
    ),
    "electra": Entry("ElectraForPreTraining", "ElectraConfig", _BERT | {"embedding_size": 16}),
    "ernie": _classifier("Ernie", use_task_id=True, task_type_vocab_size=3),
    "esm": Entry(
        "EsmForMaskedLM",
        "EsmConfig",
        _BERT
        | {
            "pad_token_id": 1,
            "mask_token_id": 2,
            "position_embedding_type": "rotary",
            "token_dropout": False,
        },
    ),
    "fnet": _classifier("FNet", use_tpu_fourier_optimizations=False),
    "funnel": Entry(
        "FunnelForSequenceClassification",
        "FunnelConfig",
        _named(
            {
                "hidden_size": "d_model",
                "num_hidden_layers": "",
                "num_attention_heads": "n_head",
                "intermediate_size": "d_inner",
            },
            block_sizes=[1, 1],
            num_decoder_layers=1,
            d_head=8,
        ),
    ),
    "ibert": _classifier("IBert", quant_mode=False),
    "layoutlm": _classifier("LayoutLM", max_2d_position_embeddings=64),
    "longformer": _classifier("Longformer", attention_window=4, pad_token_id=1),
    "megatron_bert": _classifier("MegatronBert"),
    "mobilebert": _classifier(
        "MobileBert", embedding_size=16, intra_bottleneck_size=16, num_feedforward_networks=2
    ),
    "modernbert": _classifier(
        "ModernBert",
        global_attn_every_n_layers=2,
        local_attention=4,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    ),
    "mpnet": _classifier("MPNet", pad_token_id=1),
    "nomic_bert": _classifier("NomicBert"),
    "nystromformer": _classifier(
        "Nystromformer", num_landmarks=4, segment_means_seq_len=12, conv_kernel_size=3
    ),
    "rembert": _classifier("RemBert", input_embedding_size=16),
    "roberta": Entry("RobertaForTokenClassification", "RobertaConfig", _BERT | {"pad_token_id": 1}),
    "roberta_prelayernorm": _classifier("RobertaPreLayerNorm", pad_token_id=1),
    "roformer": _classifier("RoFormer", embedding_size=16),
    "squeezebert": _classifier(
        "SqueezeBert",
        embedding_size=32,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        intermediate_groups=2,
        output_groups=2,
    ),
    "xlm": Entry(
        "XLMForSequenceClassification",
        "XLMConfig",
        _named(
            {
                "hidden_size": "emb_dim",
                "num_hidden_layers": "n_layers",
                "num_attention_heads": "n_heads",
            },
            pad_index=2,
        ),
    ),
    "xlm_roberta": Entry("XLMRobertaForMaskedLM", "XLMRobertaConfig", _BERT | {"pad_token_id": 1}),
    "xlnet": Entry(
        "XLNetForSequenceClassification",
        "XLNetConfig",
        _named(
            {
                "hidden_size": "d_model",
                "num_hidden_layers": "n_layer",
                "num_attention_heads": "n_head",
                "intermediate_size": "d_inner",
                "max_position_embeddings": "",
            },
            use_mems_eval=False,
        ),
    ),
    "yoso": _classifier("Yoso", use_expectation=True),
    "bart": _writer("Bart", _BART),
    "bigbird_pegasus": _writer("BigBirdPegasus", _BART, attention_type="original_full"),
    "blenderbot": _writer("Blenderbot", _BART),
    "blenderbot_small": _writer("BlenderbotSmall", _BART),
    "fsmt": _writer(
        "FSMT",
        _BART,
        langs=["en", "de"],
        src_vocab_size=VOCABULARY,
        tgt_vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    ),
    "led": _writer(
        "LED",
        _BART,
        attention_window=4,
        max_encoder_position_embeddings=40,
        max_decoder_position_embeddings=40,
    ),
    "longt5": _writer("LongT5", _T5, local_radius=3, global_block_size=2),
    "m2m_100": _writer("M2M100", _BART),
    "marian": Entry("MarianMTModel", "MarianConfig", _BART, translation),
    "mbart": _writer("MBart", _BART),
    "mt5": _writer("MT5", _T5),
    "pegasus": _writer("Pegasus", _BART),
    "pegasus_x": _writer("PegasusX", _BART, num_global_tokens=2, block_size=4),
    "plbart": _writer("PLBart", _BART),
    "prophetnet": Entry(
        "ProphetNetForConditionalGeneration",
        "ProphetNetConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 40,
            "ngram": 2,
            "num_buckets": 8,
            "relative_max_distance": 16,
            "decoder_start_token_id": 1,
        },
        translation,
    ),
    "switch_transformers": _writer(
        "SwitchTransformers",
        _T5,
        num_decoder_layers=2,
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    ),
    "t5": _writer("T5", _T5),
    "t5_gated": _writer("T5", _T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "umt5": _writer("UMT5", _T5),
}
