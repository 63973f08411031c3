"""Text and images together, and what fits nowhere else."""

from tests.zoo.animal import VOCABULARY, Animal, Sizes, Task
from tests.zoo.decoders import GPT2, LLAMA
from tests.zoo.encoder_decoders import BART
from tests.zoo.images import _SQUARE, _SWIN, VIT
from tests.zoo.text_encoders import BERT

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

_TROCR: Sizes = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 130,
    "cross_attention_hidden_size": 32,
}


def _captioner(
    variant: str,
    decoder: Sizes,
    tasks: tuple[Task, ...] = ("image-to-text-with-past", "image-to-text"),
    encoder: Sizes | None = None,
) -> Animal:
    config = {
        "encoder": encoder or {"model_type": "vit", **VIT},
        "decoder": {**decoder, "add_cross_attention": True, "is_decoder": True},
        "decoder_start_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    image = ("ViTImageProcessor", {"size": _SQUARE})
    return Animal("vision-encoder-decoder", tasks, config, tokens="bpe", image=image, variant=variant)


MIXED = (
    Animal("chinese_clip", ZERO_SHOT, {**_CLIP, "text_config": BERT}, tokens="wordpiece", image=_PROCESS),
    Animal("clip", (*ZERO_SHOT, "image-classification"), _CLIP, tokens="seq2seq", image=_PROCESS),
    Animal(
        "colpali",
        ("feature-extraction",),
        {
            "vlm_config": {
                "model_type": "paligemma",
                "text_config": {"model_type": "gemma", **LLAMA, "head_dim": 8},
                "vision_config": {
                    "model_type": "siglip_vision_model",
                    **VIT,
                    "projection_dim": 32,
                    "num_image_tokens": 16,
                },
                "image_token_index": VOCABULARY,  # behind the words, so that no random word is one
                "projection_dim": 32,
                "hidden_size": 32,
            },
            "embedding_dim": 12,
        },
        tokens="bpe",
    ),
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
        ("fill-mask", "text-classification", "image-classification"),
        {
            "image_size": 16,
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
        "siglip",
        ("zero-shot-image-classification",),
        {
            "text_config": {**_CLIP_TEXT, "hidden_act": "gelu_pytorch_tanh", "projection_size": 32},
            "vision_config": {**VIT, "image_size": 36, "num_attention_heads": 2},
        },
        tokens="seq2seq",
        image=("SiglipImageProcessor", {"size": {"height": 36, "width": 36}}),
        variant="uneven image",
    ),
    _captioner("", {"model_type": "gpt2", **GPT2}),
    _captioner("BERT", {"model_type": "bert", **BERT}, ("image-to-text",)),
    _captioner("TrOCR", {"model_type": "trocr", **_TROCR}),
    _captioner("Donut", {"model_type": "mbart", **BART}, encoder={"model_type": "donut-swin", **_SWIN}),
    Animal("visual_bert", ("feature-extraction",), {**BERT, "visual_embedding_dim": 24}),
)
