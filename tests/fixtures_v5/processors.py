"""The image processors, feature extractors and processors of the fixtures; imported with transformers 5 only.

Image processors are the PIL ones: transformers 5 falls back to them where torchvision is not installed, and saves both
kinds in the same words. Whole processors put what they hold into ``processor_config.json``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import transformers

from tests.fixtures_v5.vocabularies import tokenizers

_SQUARE = {"height": 16, "width": 16}
_SHORTEST = {"shortest_edge": 16}
_CROPPED = {"size": _SHORTEST, "crop_size": _SQUARE}
_LONGEST = {"shortest_edge": 16, "longest_edge": 24}

IMAGES: Mapping[str, dict[str, Any]] = {
    "Beit": _CROPPED | {"size": _SQUARE},
    "Bit": _CROPPED,
    "Blip": {"size": _SQUARE},
    "CLIP": _CROPPED | {"image_mean": [0.1, 0.2, 0.3]},
    "ChineseCLIP": _CROPPED | {"size": _SQUARE},
    "ConvNext": {"size": _SHORTEST, "crop_pct": 0.5},
    "DPT": {"size": _SQUARE, "keep_aspect_ratio": True, "ensure_multiple_of": 8},
    "DeiT": {"size": {"height": 24, "width": 24}, "crop_size": _SQUARE},
    "Detr": {"size": _LONGEST},
    "EfficientNet": {"size": _SQUARE, "rescale_offset": True, "include_top": True},
    "GLPN": {"size_divisor": 8},
    "ImageGPT": {"size": _SQUARE, "clusters": [[-0.5, -0.5, -0.5], [0.0, 0.2, 0.1], [0.6, 0.5, 0.7]]},
    "LayoutLMv3": {"size": _SQUARE, "apply_ocr": False},
    "Levit": {"size": _SHORTEST, "crop_size": _SQUARE},
    "MaskFormer": {"size": _LONGEST, "size_divisor": 8},
    "MobileNetV1": _CROPPED,
    "MobileNetV2": _CROPPED,
    "MobileViT": _CROPPED,
    "OwlViT": {"size": _SQUARE},
    "Perceiver": {"size": _SQUARE, "crop_size": {"height": 24, "width": 24}},
    "PoolFormer": _CROPPED,
    "Pvt": {"size": _SQUARE},
    "RTDetr": {"size": _SQUARE},
    "Sam": {"size": {"longest_edge": 24}, "pad_size": {"height": 24, "width": 24}},
    "Segformer": {"size": _SQUARE},
    "Siglip": {"size": _SQUARE},
    "Swin2SR": {"size_divisor": 16},
    "ViT": {"size": _SQUARE, "resample": 3, "image_std": [0.3, 0.4, 0.5]},
    "Yolos": {"size": {"shortest_edge": 32, "longest_edge": 80}},
}
"""By the class's prefix: its options. All differ from the defaults in what they can, and are small."""

SOUNDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ast": ("ASTFeatureExtractor", {"max_length": 24, "num_mel_bins": 8, "mean": -1.5, "std": 2.5}),
    "clap": (
        "ClapFeatureExtractor",
        {"feature_size": 8, "max_length_s": 1, "sampling_rate": 8000, "frequency_max": 4000},
    ),
    "seamless_m4t": ("SeamlessM4TFeatureExtractor", {"feature_size": 8, "num_mel_bins": 8}),
    "speech_to_text": ("Speech2TextFeatureExtractor", {"feature_size": 8, "num_mel_bins": 8}),
    "speecht5": ("SpeechT5FeatureExtractor", {"do_normalize": True}),
    "wav2vec2": ("Wav2Vec2FeatureExtractor", {"do_normalize": True, "return_attention_mask": True}),
    "whisper": ("WhisperFeatureExtractor", {"feature_size": 8, "chunk_length": 1}),
}


def builders() -> dict[str, Callable[[], Any]]:
    """How to make each fixture's processor."""
    images = {f"image_{name.lower()}": _later(f"{name}ImageProcessorPil", options) for name, options in IMAGES.items()}
    sounds = {f"sound_{name}": _later(kind, options) for name, (kind, options) in SOUNDS.items()}
    return {**images, **sounds, "whole_clip": _clip, "whole_whisper": _whisper}


def _later(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**options)


def _clip() -> Any:
    images = transformers.CLIPImageProcessorPil(**IMAGES["CLIP"])
    return transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizers()["clip"]())


def _whisper() -> Any:
    sounds = transformers.WhisperFeatureExtractor(**SOUNDS["whisper"][1])
    return transformers.WhisperProcessor(feature_extractor=sounds, tokenizer=tokenizers()["whisper"]())
