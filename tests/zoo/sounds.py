"""Models that hear."""

from dataclasses import replace
from typing import Any

from tests.zoo.animal import VOCABULARY, Animal, Sizes, Task
from tests.zoo.encoder_decoders import BART
from tests.zoo.images import VIT

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

_WHISPER = Animal(
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
)

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
        "mctct",
        ("feature-extraction", "automatic-speech-recognition"),
        {
            "vocab_size": 40,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "intermediate_size": 37,
            "max_position_embeddings": 140,
            "input_feat_per_channel": 16,
            "conv_glu_dim": 1,
            "num_conv_layers": 1,
            "conv_kernel": [7],
            "conv_stride": [24],
        },
    ),
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
    _WHISPER,
    replace(_WHISPER, tasks=SPEECH, config={**_WHISPER.config, "max_source_positions": 100}, variant="short sounds"),
)
