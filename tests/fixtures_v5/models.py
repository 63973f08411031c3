"""The models of the fixtures: every kind of rotation, and what else differs between the releases.

A model is a class and a config of transformers 5; it is small, and its numbers depend on everything that could be lost.
"""

from dataclasses import dataclass, field
from typing import Any

TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BERT = {k: v for k, v in TEXT.items() if k not in ("num_key_value_heads", "bos_token_id", "eos_token_id")}
HALVES = [1.0 + 0.1 * i for i in range(4)]
LONG = [2.0 + 0.5 * i for i in range(4)]
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
T5 = {
    "vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
    "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """One fixture: what to build in transformers 5, and the task as Optimum calls it.

    Attributes:
        task: None for a class that no task loads, whose weights are translated all the same.
        fused: saved as 5.x holds the weights, experts fused.
        output: name of the output that is compared; None for the first.
    """

    name: str
    model_class: str
    task: str | None
    config: dict[str, Any] = field(default_factory=dict)
    rotation: str | None = None
    untie: tuple[str, ...] = ()  # parameters to store although the config ties them
    output: str | None = None
    fused: bool = False


def causal(name: str, prefix: str, rope: dict[str, Any], rotation: str, **config: Any) -> Model:
    """A decoder with a language-modelling head."""
    return Model(name, f"{prefix}ForCausalLM", "text-generation", TEXT | {"rope_parameters": rope} | config, rotation)


def _rope(kind: str = "default", theta: float = 500000.0, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta} | more


def _fused(name: str, prefix: str, **config: Any) -> Model:
    """A mixture of experts, two for each token, as 5.x holds it."""
    given = TEXT | {"rope_parameters": _rope(theta=300.0), "num_experts_per_tok": 2} | config
    return Model(name, f"{prefix}ForCausalLM", "text-generation", given, "default", fused=True)


MODELS: tuple[Model, ...] = (
    causal("llama_theta", "Llama", _rope(), "default", tie_word_embeddings=True),
    causal("llama_linear", "Llama", _rope("linear", 20000.0, factor=4.0), "linear"),
    causal("llama_dynamic", "Llama", _rope("dynamic", 20000.0, factor=2.0), "dynamic", max_position_embeddings=16),
    causal("llama_dynamic_short", "Llama", _rope("dynamic", 20000.0, factor=2.0), "dynamic"),
    causal(
        "llama_llama3",
        "Llama",
        _rope(
            "llama3", 50.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
        "llama3",
    ),
    causal("llama_yarn", "Llama", _rope("yarn", 300.0, factor=4.0, original_max_position_embeddings=16), "yarn"),
    causal(
        "qwen2_yarn",
        "Qwen2",
        _rope("yarn", 300.0, factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, attention_factor=1.3),
        "yarn",
    ),
    causal(
        "mistral_longrope",
        "Mistral",
        _rope(
            "longrope", 1000.0, short_factor=HALVES, long_factor=LONG, factor=3.0, original_max_position_embeddings=16
        ),
        "longrope",
        head_dim=8,
    ),
    causal(
        "mistral_longrope_short",
        "Mistral",
        _rope(
            "longrope", 1000.0, short_factor=HALVES, long_factor=LONG, factor=3.0, original_max_position_embeddings=48
        ),
        "longrope",
        head_dim=8,
    ),
    causal(
        "phi3_longrope",
        "Phi3",
        _rope("longrope", 1000.0, short_factor=HALVES, long_factor=LONG, original_max_position_embeddings=16),
        "longrope",
        original_max_position_embeddings=16,
    ),
    causal("phi3_partial", "Phi3", _rope(partial_rotary_factor=0.5), "default"),
    causal("qwen3_theta", "Qwen3", _rope(theta=1000000.0), "default", head_dim=16),
    causal(
        "qwen3_moe",
        "Qwen3Moe",
        _rope(theta=1000000.0),
        "default",
        head_dim=8,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
    ),
    causal("gemma_theta", "Gemma", _rope(), "default", head_dim=8),
    causal(
        "gemma2_softcapping",
        "Gemma2",
        _rope(),
        "default",
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
        sliding_window=8,
    ),
    Model(
        "gemma3_layers",
        "Gemma3ForCausalLM",
        "text-generation",
        TEXT
        | {
            "model_class_config": "Gemma3TextConfig",
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 200000.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
        "per-layer",
    ),
    Model(
        "modernbert_layers",
        "ModernBertForMaskedLM",
        "fill-mask",
        BERT
        | {
            "num_hidden_layers": 5,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "local_attention": 8,
            "layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 300.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        "per-layer",
    ),
    causal("gpt_neox_share", "GPTNeoX", _rope(theta=300.0, partial_rotary_factor=0.5), "default"),
    causal("stablelm_share", "StableLm", _rope(theta=300.0, partial_rotary_factor=0.75), "default"),
    causal("phi_share", "Phi", _rope(theta=300.0, partial_rotary_factor=0.75), "default"),
    causal("glm_share", "Glm", _rope(theta=300.0, partial_rotary_factor=1.0), "default", head_dim=8),
    causal("nemotron_share", "Nemotron", _rope(theta=300.0, partial_rotary_factor=0.75), "default", head_dim=8),
    causal("cohere_theta", "Cohere", _rope(theta=300.0), "default", logit_scale=0.3),
    causal("olmo_linear", "Olmo", _rope("linear", 300.0, factor=2.0), "linear", clip_qkv=0.9),
    causal("olmo2_theta", "Olmo2", _rope(theta=300.0), "default"),
    causal("smollm3_theta", "SmolLM3", _rope(theta=300.0), "default", no_rope_layers=[1, 0]),
    causal("granite_theta", "Granite", _rope(theta=300.0), "default", logits_scaling=2.0, residual_multiplier=0.7),
    causal("helium_theta", "Helium", _rope(theta=300.0), "default", head_dim=8),
    causal("arcee_yarn", "Arcee", _rope("yarn", 300.0, factor=4.0, original_max_position_embeddings=16), "yarn"),
    causal("falcon_theta", "Falcon", _rope(theta=300.0), "default", alibi=False, multi_query=True),
    causal(
        "deepseek_v3_yarn",
        "DeepseekV3",
        _rope("yarn", 300.0, factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.8),
        "yarn",
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    causal(
        "gpt_oss_default",
        "GptOss",
        _rope(theta=300.0),
        "default",
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
    ),
    Model(
        "moonshine_share",
        "MoonshineForConditionalGeneration",
        "automatic-speech-recognition",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "rope_parameters": _rope(theta=300.0, partial_rotary_factor=0.5),
        },
        "default",
    ),
    _fused("qwen3_moe_fused", "Qwen3Moe", head_dim=8, num_experts=6, moe_intermediate_size=16),
    _fused("qwen2_moe_fused", "Qwen2Moe", num_experts=6, moe_intermediate_size=16, shared_expert_intermediate_size=24),
    _fused("olmoe_fused", "Olmoe", num_experts=6, norm_topk_prob=True),
    _fused("mixtral_fused", "Mixtral", num_local_experts=6, head_dim=8),
    _fused(
        "deepseek_v3_fused",
        "DeepseekV3",
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    # --- without rotary embeddings -----------------------------------------------------------------------------------
    Model("bert", "BertForSequenceClassification", "text-classification", BERT | {"num_labels": 3}),
    Model("roberta", "RobertaForMaskedLM", "fill-mask", BERT | {"pad_token_id": 1, "max_position_embeddings": 66}),
    Model(
        "distilbert",
        "DistilBertModel",
        "feature-extraction",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    ),
    Model(
        "gpt2",
        "GPT2LMHeadModel",
        "text-generation",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    Model(
        "opt",
        "OPTForCausalLM",
        "text-generation",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
    ),
    Model("t5_scaled", "T5ForConditionalGeneration", "text2text-generation", T5),
    Model(
        "t5_unscaled",
        "T5ForConditionalGeneration",
        "text2text-generation",
        T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
    ),
    Model(
        "t5_untied",
        "T5ForConditionalGeneration",
        "text2text-generation",
        T5 | {"tie_word_embeddings": False},
        untie=("lm_head.weight",),
    ),
    Model("mt5", "MT5ForConditionalGeneration", "text2text-generation", T5),
    Model(
        "longt5",
        "LongT5ForConditionalGeneration",
        "text2text-generation",
        T5 | {"tie_word_embeddings": False, "local_radius": 4},
    ),
    Model(
        "bart",
        "BartForConditionalGeneration",
        "text2text-generation",
        {
            "vocab_size": 64,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
        },
    ),
    Model("vit", "ViTForImageClassification", "image-classification", VISION | {"num_labels": 3}),
    Model("vit_msn_renamed", "ViTMSNForImageClassification", "image-classification", VISION | {"num_labels": 3}),
    Model("clip_vision_renamed", "CLIPVisionModel", "feature-extraction", VISION),
    Model("siglip_vision_renamed", "SiglipVisionModel", "feature-extraction", VISION),
    Model(
        "vit_mae_renamed",
        "ViTMAEForPreTraining",
        None,
        VISION
        | {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 24,
        },
        output="logits",
    ),
    Model(
        "data2vec_vision_renamed",
        "Data2VecVisionForSemanticSegmentation",
        "semantic-segmentation",
        VISION
        | {
            "num_hidden_layers": 4,
            "out_indices": [1, 2, 3, 4],
            "pool_scales": [1, 2, 3],
            "auxiliary_channels": 8,
            "num_labels": 3,
        },
    ),
    Model(
        "xlm_padding",
        "XLMModel",
        "feature-extraction",
        {
            "vocab_size": 64,
            "emb_dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
            "pad_token_id": 7,
            "bos_token_id": 5,
            "eos_token_id": 6,
        },
    ),
    Model(
        "swin",
        "SwinForImageClassification",
        "image-classification",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 2,
            "num_labels": 3,
        },
    ),
    Model(
        "whisper",
        "WhisperForConditionalGeneration",
        "automatic-speech-recognition",
        {
            "vocab_size": 64,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
        },
    ),
    Model(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        "automatic-speech-recognition",
        {
            "vocab_size": 32,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "conv_dim": [16, 16],
            "conv_stride": [4, 2],
            "conv_kernel": [8, 3],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
    Model(
        "detr_backbone",
        "DetrForObjectDetection",
        "object-detection",
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_queries": 5,
            "num_labels": 3,
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "out_features": ["stage4"],
            },
        },
    ),
)
