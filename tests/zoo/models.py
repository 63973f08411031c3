"""The animals of the zoo, as data: model type, tasks, config, and what prepares the inputs.

Sizes are odd where the architecture lets them be, and differ from each other, so that a transposed or swapped axis
shows.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Tokens = Literal["wordpiece", "bpe", "seq2seq", "t5"]
Task = str
Sizes = dict[str, Any]

VOCABULARY = 300
"""Token ids of every model that reads text; the tokenizers of the zoo have fewer."""


@dataclass(frozen=True)
class Animal:
    """One model type.

    Attributes:
        model_type: as in ``config.json``.
        tasks: what it is exported for, by Optimum's names.
        config: keyword arguments of the config class, in nested dictionaries for models of several parts.
        tokens: kind of tokenizer; None for a model that reads no text.
        image: class and keyword arguments of the image processor.
        audio: class and keyword arguments of the feature extractor.
        gain: what small initial weights are multiplied with; detectors that rank their candidates need more, or all tie.
        processor: class that joins image processor and tokenizer, where the repo needs to name it.
    """

    model_type: str
    tasks: tuple[Task, ...]
    config: Sizes = field(default_factory=dict)
    tokens: Tokens | None = None
    image: tuple[str, Sizes] | None = None
    audio: tuple[str, Sizes] | None = None
    processor: str | None = None
    gain: float = 4.0


# --- text encoders ---------------------------------------------------------------------------------------------------

BERT: Sizes = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 130,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
DISTILBERT: Sizes = {
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 37,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
}
XLM: Sizes = {
    "vocab_size": VOCABULARY,
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 130,
    "pad_index": 0,
    "pad_token_id": 0,
}

ALL_TEXT = (
    "feature-extraction",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
)
SOME_TEXT = ("feature-extraction", "fill-mask", "text-classification")


def _text(model_type: str, tasks: tuple[Task, ...] = SOME_TEXT, base: Sizes = BERT, **config: Any) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="wordpiece")


TEXT = (
    _text("albert", ALL_TEXT, embedding_size=16),
    _text("bert", ALL_TEXT),
    _text("big_bird", attention_type="original_full"),
    _text("camembert"),
    _text("convbert", embedding_size=32, conv_kernel_size=3),
    _text("data2vec-text"),
    _text("deberta", SOME_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=16),
    _text("deberta-v2", ALL_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8),
    _text("distilbert", ALL_TEXT, DISTILBERT),
    _text("electra", embedding_size=16),
    _text("esm", emb_layer_norm_before=False, mask_token_id=4, position_embedding_type="rotary", token_dropout=True),
    _text("flaubert", base=XLM),
    _text("ibert"),
    _text("layoutlm", ("feature-extraction", "token-classification"), max_2d_position_embeddings=1024),
    _text("lilt", ("feature-extraction", "token-classification"), hidden_size=48, max_2d_position_embeddings=1024),
    _text("longformer", ("feature-extraction", "fill-mask"), attention_window=8),
    _text("markuplm", ("feature-extraction", "token-classification"), max_depth=10, xpath_unit_hidden_size=8),
    _text("megatron-bert"),
    _text("mobilebert", embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
    _text("modernbert", SOME_TEXT, global_attn_every_n_layers=2, local_attention=8, reference_compile=False),
    _text("mpnet"),
    _text("nystromformer", segment_means_seq_len=64, num_landmarks=64, conv_kernel_size=5),
    _text("rembert", input_embedding_size=16, output_embedding_size=24),
    _text("roberta", ALL_TEXT),
    _text("roformer", embedding_size=32),
    _text("splinter", ("feature-extraction", "question-answering"), question_token_id=4),
    _text("squeezebert", embedding_size=32, intermediate_size=40),
    _text("xlm", base=XLM),
    _text("xlm-roberta"),
)

# --- decoders --------------------------------------------------------------------------------------------------------

LLAMA: Sizes = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2: Sizes = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GENERATE = ("text-generation-with-past",)
BOTH = ("text-generation-with-past", "text-generation")
CLASSIFY = ("text-generation-with-past", "text-classification")


def _decoder(model_type: str, tasks: tuple[Task, ...] = GENERATE, base: Sizes = LLAMA, **config: Any) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="bpe")


_GEMMA: Sizes = {**LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
_MOE: Sizes = {**LLAMA, "moe_intermediate_size": 24, "num_experts_per_tok": 2}

DECODERS = (
    _decoder("arcee"),
    _decoder("bloom", (*CLASSIFY, "token-classification"), {**GPT2, "hidden_size": 32}),
    _decoder("codegen", base={**GPT2, "rotary_dim": 4, "n_ctx": 128}),
    _decoder("cohere"),
    _decoder(
        "deepseek_v3",
        base=_MOE,
        num_key_value_heads=4,
        q_lora_rank=12,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=12,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
    ),
    _decoder("falcon", (*GENERATE, "token-classification"), num_kv_heads=4, alibi=False, ffn_hidden_size=37),
    _decoder("gemma", CLASSIFY, {**LLAMA, "head_dim": 16}),
    _decoder("gemma2", CLASSIFY, _GEMMA),
    _decoder("gemma3_text", base=_GEMMA, sliding_window_pattern=2),
    _decoder("glm", partial_rotary_factor=0.5, head_dim=8),
    _decoder("gpt2", (*BOTH, "feature-extraction", "text-classification", "token-classification"), GPT2),
    _decoder("gpt_bigcode", CLASSIFY, GPT2),
    _decoder(
        "gpt_neo",
        CLASSIFY,
        {**GPT2, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 128},
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    ),
    _decoder("gpt_neox", CLASSIFY, rotary_pct=0.5),
    _decoder(
        "gpt_oss", base={**LLAMA, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}
    ),
    _decoder("gptj", CLASSIFY, {**GPT2, "rotary_dim": 4}),
    _decoder("granite"),
    _decoder("helium", head_dim=8),
    _decoder("llama", (*BOTH, "feature-extraction", "text-classification")),
    _decoder("mistral", CLASSIFY, sliding_window=16),
    _decoder(
        "mpt", CLASSIFY, {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}
    ),
    _decoder("nemotron", head_dim=8),
    _decoder("olmo"),
    _decoder("olmo2"),
    _decoder("opt", CLASSIFY, ffn_dim=37, word_embed_proj_dim=32),
    _decoder("phi", CLASSIFY, partial_rotary_factor=0.5),
    _decoder("phi3", CLASSIFY),
    _decoder("qwen2", (*CLASSIFY, "token-classification")),
    _decoder("qwen3", (*BOTH, "text-classification"), head_dim=16),
    _decoder("qwen3_moe", base=_MOE, num_experts=4, head_dim=8, decoder_sparse_step=1),
    _decoder("smollm3", CLASSIFY),
    _decoder("stablelm"),
)

# --- encoder-decoders ------------------------------------------------------------------------------------------------

BART: Sizes = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 41,
    "max_position_embeddings": 130,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5: Sizes = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
SEQ2SEQ = ("text2text-generation-with-past",)


def _seq2seq(model_type: str, tasks: tuple[Task, ...] = SEQ2SEQ, base: Sizes = BART, **config: Any) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="seq2seq")


SEQ2SEQS = (
    _seq2seq("bart", (*SEQ2SEQ, "text2text-generation", "feature-extraction", "text-classification", *GENERATE)),
    _seq2seq("bigbird_pegasus", attention_type="original_full"),
    _seq2seq("blenderbot"),
    _seq2seq("blenderbot-small"),
    _seq2seq(
        "encoder-decoder",
        base={
            "encoder": {"model_type": "bert", **BERT},
            "decoder": {"model_type": "gpt2", **GPT2, "add_cross_attention": True, "is_decoder": True},
            "decoder_start_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
    _seq2seq("longt5", base=T5, local_radius=4, global_block_size=4, encoder_attention_type="local"),
    _seq2seq("m2m_100"),
    _seq2seq("marian"),
    _seq2seq("mbart", (*SEQ2SEQ, *GENERATE)),
    _seq2seq("mt5", base=T5, d_kv=16, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    _seq2seq("pegasus"),
    _seq2seq("t5", (*SEQ2SEQ, "text2text-generation", "feature-extraction"), T5),
)

# --- images ----------------------------------------------------------------------------------------------------------

VIT: Sizes = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "image_size": 32,
    "patch_size": 8,
}
CLASSIFY_IMAGE = ("feature-extraction", "image-classification")
_SQUARE = {"height": 32, "width": 32}
_TIMMLESS: Sizes = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
_RESNET: Sizes = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
_DETR: Sizes = {
    **_TIMMLESS,
    "backbone_config": {**_RESNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "num_queries": 7,
    "num_labels": 3,
}
_RT_DETR: Sizes = {
    "use_timm_backbone": False,
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 12, 16, 20],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [12, 16, 20],
    "encoder_ffn_dim": 37,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 37,
    "decoder_in_channels": [32, 32, 32],
    "num_queries": 20,
    "num_denoising": 0,
    "num_labels": 3,
    "anchor_image_size": None,
}
_SWIN: Sizes = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "encoder_stride": 8,
}


def _image(
    model_type: str,
    tasks: tuple[Task, ...] = CLASSIFY_IMAGE,
    base: Sizes | None = None,
    gain: float = 4.0,
    **config: Any,
) -> Animal:
    sizes = {**(VIT if base is None else base), **config}
    side = sizes.get("image_size", 64)
    size = {"height": side, "width": side} if isinstance(side, int) else {"height": side[0], "width": side[1]}
    return Animal(model_type, tasks, sizes, image=("ViTImageProcessor", {"size": size}), gain=gain)


IMAGES = (
    _image("beit"),
    _image("clip_vision_model", ("feature-extraction",)),
    _image("convnext", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image("convnextv2", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image(
        "cvt",
        base={"embed_dim": [8, 12, 16], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "cls_token": [False, False, True]},
    ),
    _image("data2vec-vision"),
    _image("deit", (*CLASSIFY_IMAGE, "masked-im"), encoder_stride=8),
    _image("detr", ("object-detection", "image-segmentation"), _DETR),
    _image("dinov2"),
    _image("donut-swin", ("feature-extraction",), _SWIN),
    _image(
        "dpt",
        ("depth-estimation", "semantic-segmentation"),
        backbone_out_indices=[0, 1, 2, 3],
        num_hidden_layers=4,
        neck_hidden_sizes=[8, 12, 16, 20],
        fusion_hidden_size=16,
    ),
    _image(
        "efficientnet",
        base={"image_size": 32, "width_coefficient": 0.3, "depth_coefficient": 0.2, "hidden_dim": 384, "num_labels": 5},
    ),
    _image(
        "glpn",
        ("depth-estimation",),
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        decoder_hidden_size=16,
    ),
    _image(
        "hiera",
        base={"image_size": [32, 32], "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
        patch_stride=[4, 4],
        masked_unit_size=[8, 8],
    ),
    _image(
        "levit",
        base={
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    _image(
        "maskformer",
        ("image-segmentation",),
        {
            "fpn_feature_size": 32,
            "mask_feature_size": 32,
            "backbone_config": {"model_type": "swin", **_SWIN, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 4, 4]},
            "decoder_config": {**{k: v for k, v in _DETR.items() if "backbone" not in k}, "model_type": "detr"},
        },
    ),
    _image(
        "mgp-str",
        ("feature-extraction",),
        {
            "image_size": [32, 128],
            "patch_size": [4, 8],
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        num_character_labels=20,
        num_bpe_labels=50,
        num_wordpiece_labels=40,
        mlp_ratio=2.0,
    ),
    _image("mobilenet_v1", base={"image_size": 32, "depth_multiplier": 0.25}),
    _image("mobilenet_v2", base={"image_size": 32, "depth_multiplier": 0.25}),
    _image(
        "mobilevit",
        (*CLASSIFY_IMAGE, "image-segmentation"),
        {"image_size": 64, "hidden_sizes": [16, 20, 24], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32]},
        num_attention_heads=4,
    ),
    _image("poolformer", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image(
        "pvt",
        base={
            "image_size": 64,
            "hidden_sizes": [8, 16, 32, 40],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 4],
        },
    ),
    _image(
        "regnet", base={"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "groups_width": 4}
    ),
    _image("resnet", base={k: v for k, v in _RESNET.items() if k != "model_type"}),
    _image("rt_detr", ("object-detection",), _RT_DETR, gain=8.0),
    _image("rt_detr_v2", ("object-detection",), _RT_DETR, gain=8.0),
    _image(
        "segformer",
        (*CLASSIFY_IMAGE, "semantic-segmentation"),
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        decoder_hidden_size=16,
    ),
    _image("siglip_vision_model", ("feature-extraction",)),
    _image("swin", (*CLASSIFY_IMAGE, "masked-im"), _SWIN),
    _image("swin2sr", ("image-to-image",), _SWIN, patch_size=1, upscale=2),
    _image("swinv2", base=_SWIN),
    _image("table-transformer", ("object-detection",), _DETR),
    _image("vit", (*CLASSIFY_IMAGE, "masked-im"), encoder_stride=8),
    _image("vit_mae", ("feature-extraction",), decoder_hidden_size=16, decoder_num_hidden_layers=1),
    _image("vit_msn"),
    Animal(
        "vitpose",
        ("keypoint-detection",),
        {
            "backbone_config": {
                "model_type": "vitpose_backbone",
                **VIT,
                "image_size": [64, 48],
                "patch_size": [16, 16],
                "out_features": ["stage2"],
            },
            "num_labels": 5,
            "scale_factor": 4,
        },
        image=("VitPoseImageProcessor", {"size": {"height": 64, "width": 48}}),
    ),
    _image("yolos", ("object-detection",), image_size=[32, 48], num_detection_tokens=7, num_labels=3),
)

# --- sound -----------------------------------------------------------------------------------------------------------

WAV2VEC2: Sizes = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "conv_dim": [12, 16, 20],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 4, 4],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
    "classifier_proj_size": 16,
    "xvector_output_dim": 16,
    "tdnn_dim": [16, 16, 24],
    "tdnn_kernel": [5, 3, 1],
    "tdnn_dilation": [1, 2, 1],
    "num_labels": 4,
    "pad_token_id": 0,
}
HEAR = ("feature-extraction", "automatic-speech-recognition", "audio-classification")
SPEECH = ("automatic-speech-recognition-with-past",)


def _sound(model_type: str, tasks: tuple[Task, ...] = HEAR, **config: Any) -> Animal:
    extractor = ("Wav2Vec2FeatureExtractor", {"return_attention_mask": False})
    return Animal(model_type, tasks, {**WAV2VEC2, **config}, audio=extractor)


_SEW: Sizes = {"squeeze_factor": 2, "conv_dim": [12, 16, 20], "position_buckets": 8, "max_position_embeddings": 64}
_SPEECH: Sizes = {k: v for k, v in BART.items() if k not in ("max_position_embeddings", "forced_eos_token_id")}

SOUNDS = (
    Animal(
        "audio-spectrogram-transformer",
        ("feature-extraction", "audio-classification"),
        {**{k: v for k, v in VIT.items() if k != "image_size"}, "num_mel_bins": 16, "max_length": 64, "num_labels": 4},
        audio=("ASTFeatureExtractor", {"num_mel_bins": 16, "max_length": 64}),
    ),
    _sound("data2vec-audio", (*HEAR, "audio-frame-classification"), conv_pos_kernel_size=5, num_conv_pos_embeddings=2),
    _sound("hubert"),
    Animal(
        "moonshine",
        SPEECH,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 37,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 1,
        },
        audio=("Wav2Vec2FeatureExtractor", {"return_attention_mask": True}),
    ),
    _sound("sew", **_SEW),
    _sound("sew-d", **_SEW),
    Animal(
        "speech_to_text",
        SPEECH,
        {
            **_SPEECH,
            "input_feat_per_channel": 16,
            "num_conv_layers": 2,
            "conv_kernel_sizes": [5, 5],
            "conv_channels": 24,
            "max_source_positions": 400,
            "max_target_positions": 64,
        },
    ),
    _sound("unispeech"),
    _sound("unispeech-sat", (*HEAR, "audio-frame-classification", "audio-xvector")),
    _sound("wav2vec2", (*HEAR, "audio-frame-classification", "audio-xvector")),
    _sound("wav2vec2-conformer", conv_depthwise_kernel_size=5),
    _sound("wavlm", (*HEAR, "audio-frame-classification"), num_buckets=16, max_bucket_distance=32),
    Animal(
        "whisper",
        (*SPEECH, "automatic-speech-recognition", "audio-classification"),
        {
            **_SPEECH,
            "num_mel_bins": 16,
            "max_source_positions": 1500,
            "max_target_positions": 64,
            "begin_suppress_tokens": None,
            "suppress_tokens": None,
            "num_labels": 4,
        },
        audio=("WhisperFeatureExtractor", {"feature_size": 16}),
    ),
)

# --- text and images together, and the rest --------------------------------------------------------------------------

_CLIP_TEXT: Sizes = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "projection_dim": 24,
}
_CLIP: Sizes = {"text_config": _CLIP_TEXT, "vision_config": {**VIT, "projection_dim": 24}, "projection_dim": 24}
_OWL: Sizes = {"text_config": _CLIP_TEXT, "vision_config": VIT, "projection_dim": 32}
_PROCESS: tuple[str, Sizes] = ("CLIPImageProcessor", {"size": _SQUARE, "crop_size": _SQUARE})
ZERO_SHOT = ("zero-shot-image-classification", "feature-extraction")

MIXED = (
    Animal("chinese_clip", ZERO_SHOT, {**_CLIP, "text_config": BERT}, tokens="wordpiece", image=_PROCESS),
    Animal("clip", (*ZERO_SHOT, "image-classification"), _CLIP, tokens="seq2seq", image=_PROCESS),
    Animal(
        "decision_transformer",
        ("feature-extraction",),
        {
            "state_dim": 5,
            "act_dim": 3,
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 160,
            "max_ep_len": 64,
        },
    ),
    Animal(
        "groupvit",
        ("feature-extraction",),
        {
            "text_config": _CLIP_TEXT,
            "vision_config": {
                **VIT,
                "depths": [1, 1, 1],
                "num_group_tokens": [8, 4, 0],
                "num_output_groups": [8, 4, 4],
            },
            "projection_dim": 24,
            "projection_intermediate_dim": 40,
        },
        tokens="seq2seq",
        image=_PROCESS,
    ),
    Animal(
        "imagegpt",
        ("image-classification",),
        {**GPT2, "n_embd": 64, "vocab_size": 65, "n_positions": 256, "num_labels": 4},
    ),
    Animal(
        "layoutlmv3",
        ("feature-extraction", "token-classification"),
        {
            **BERT,
            "coordinate_size": 6,
            "shape_size": 4,
            "max_2d_position_embeddings": 1024,
            "input_size": 32,
            "patch_size": 8,
        },
    ),
    Animal("metaclip_2", ("zero-shot-image-classification",), _CLIP, tokens="seq2seq", image=_PROCESS),
    Animal("owlv2", ("zero-shot-object-detection",), _OWL),
    Animal("owlvit", ("zero-shot-object-detection",), _OWL),
    Animal(
        "patchtsmixer",
        ("time-series-forecasting",),
        {
            "context_length": 32,
            "patch_length": 8,
            "patch_stride": 8,
            "num_input_channels": 3,
            "d_model": 16,
            "num_layers": 2,
        },
    ),
    Animal(
        "patchtst",
        ("time-series-forecasting",),
        {
            "context_length": 32,
            "patch_length": 8,
            "patch_stride": 8,
            "num_input_channels": 3,
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 24,
            "prediction_length": 6,
        },
    ),
    Animal(
        "perceiver",
        ("fill-mask", "text-classification"),
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_latents": 24,
            "num_latents": 8,
            "num_blocks": 1,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    Animal(
        "pix2struct",
        ("image-to-text-with-past",),
        {
            "text_config": {
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "d_kv": 8,
                "d_ff": 37,
                "num_layers": 2,
                "num_heads": 4,
                "decoder_start_token_id": 0,
                "pad_token_id": 0,
                "eos_token_id": 2,
            },
            "vision_config": {
                "hidden_size": 32,
                "patch_embed_hidden_size": 768,
                "d_ff": 37,
                "d_kv": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "seq_len": 64,
            },
        },
        tokens="t5",
        image=("Pix2StructImageProcessor", {"max_patches": 24}),
        processor="Pix2StructProcessor",
    ),
    Animal(
        "sam",
        ("feature-extraction",),
        {
            "vision_config": {
                "hidden_size": 32,
                "output_channels": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": 64,
                "patch_size": 16,
                "window_size": 2,
                "global_attn_indexes": [1],
                "num_pos_feats": 8,
                "mlp_dim": 37,
            },
            "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
            "mask_decoder_config": {
                "hidden_size": 16,
                "mlp_dim": 24,
                "iou_head_hidden_dim": 16,
                "num_attention_heads": 4,
            },
        },
    ),
    Animal("siglip", ZERO_SHOT, _CLIP, tokens="seq2seq", image=("SiglipImageProcessor", {"size": _SQUARE})),
    Animal(
        "vision-encoder-decoder",
        ("image-to-text-with-past", "image-to-text"),
        {
            "encoder": {"model_type": "vit", **VIT},
            "decoder": {"model_type": "gpt2", **GPT2, "add_cross_attention": True, "is_decoder": True},
            "decoder_start_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        tokens="bpe",
        image=("ViTImageProcessor", {"size": _SQUARE}),
    ),
    Animal("visual_bert", ("feature-extraction",), {**BERT, "visual_embedding_dim": 24}),
)

ANIMALS: tuple[Animal, ...] = (*TEXT, *DECODERS, *SEQ2SEQS, *IMAGES, *SOUNDS, *MIXED)


def find(model_type: str) -> Animal:
    """The animal of a model type."""
    return next(animal for animal in ANIMALS if animal.model_type == model_type)
