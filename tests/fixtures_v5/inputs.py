"""Inputs for a fixture: two rows, the second padded, a function of the config alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_LENGTH = 24


def inputs_for(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by input name, as the model's ``forward`` takes them."""
    kind = config["model_type"]
    if kind == "whisper":
        frames = _noise(2, config["num_mel_bins"], 2 * config["max_source_positions"])
        return {"input_features": frames, "decoder_input_ids": _ids(config["vocab_size"], 6)}
    if kind == "moonshine":
        return {"input_values": _noise(2, 4000), "decoder_input_ids": _ids(config["vocab_size"], 6)}
    if kind == "wav2vec2":
        return {"input_values": _noise(2, 400)}
    if kind == "detr":
        return {"pixel_values": _noise(2, 3, 64, 64)}
    if kind == "vit_mae":
        patches = (config["image_size"] // config["patch_size"]) ** 2
        return {"pixel_values": _noise(2, 3, config["image_size"], config["image_size"]), "noise": _noise(2, patches)}
    if kind == "xlm":  # it finds the padding itself
        ids = _ids(config["vocab_size"], _LENGTH)
        ids[ids == config["pad_token_id"]] = 3
        ids[1, _LENGTH - 5 :] = config["pad_token_id"]
        return {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    if "image_size" in config:
        return {"pixel_values": _noise(2, 3, config["image_size"], config["image_size"])}
    ids = _ids(config["vocab_size"], _LENGTH)
    mask = np.ones_like(ids)
    mask[1, _LENGTH - 5 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config.get("is_encoder_decoder"):
        inputs["decoder_input_ids"] = _ids(config["vocab_size"], 7)
    return inputs


def meaningful(output: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The output without the positions of padding: what is computed there is nobody's business, and differs."""
    mask = inputs.get("attention_mask")
    return output[mask == 1] if mask is not None and output.shape[:2] == mask.shape else output


def images() -> list[Any]:
    """Two pictures, wide and tall."""
    from PIL import Image

    sizes = ((64, 48), (37, 91))
    return [
        Image.fromarray(np.random.Generator(np.random.PCG64(w)).integers(0, 256, size=(h, w, 3), dtype=np.uint8))
        for w, h in sizes
    ]


def sounds(rate: int) -> list[np.ndarray]:
    """Two sounds, of 0.1 and 0.23 seconds."""
    return [_noise(int(rate * seconds)) for seconds in (0.1, 0.23)]


def processed(processor: Any) -> dict[str, np.ndarray]:
    """What an image processor or feature extractor makes of each input, by number of the input and name."""
    rate = getattr(processor, "sampling_rate", None)
    inputs, options = (sounds(rate), {"sampling_rate": rate}) if rate else (images(), {})
    found = {}
    for number, one in enumerate(inputs):
        for name, value in processor(one, return_tensors="np", **options).items():
            found[f"{number}.{name}"] = np.asarray(value)
    return found


def _ids(vocabulary: int, length: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(length)).integers(3, vocabulary, size=(2, length), dtype=np.int64)


def _noise(*shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(7)).standard_normal(shape, dtype=np.float32)
