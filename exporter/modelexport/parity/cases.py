"""The inputs on which PyTorch and ONNX Runtime are compared.

Where the model has a tokenizer or a processor, its inputs come from there: real ids, real padding, real pixel
statistics. What neither makes (a KV cache, boxes) comes from Optimum's dummy input generators, in the same shapes.
Every case differs in shape from the traced one, so a dimension or a branch that the trace froze cannot pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx.base import OnnxConfig

from modelexport.dummies import dummy_inputs
from modelexport.patches import no_padding_token
from modelexport.plan import GraphPlan

_SHORT = "Hello!"
_PLAIN = "The quick brown fox jumps over the lazy dog, and 42 others watch."
_UNICODE = "Zoë paid 3,50 € for a crème brûlée — 東京 is far away \U0001f680."
LONG = " ".join([_PLAIN, _UNICODE] * 8)
_LONGEST = 97  # tokens; an odd number that no model's position table is too short for but tiny ones


@dataclass(frozen=True)
class Shape:
    """How large the inputs of one case are, and which texts they are made of."""

    name: str
    batch: int
    length: int
    texts: tuple[str, ...]


SHAPES = (
    Shape("batch 1, short", 1, 5, (_SHORT,)),
    Shape("batch 1, long", 1, 45, (LONG,)),
    Shape("batch 3, padded", 3, 23, (_SHORT, _PLAIN, _UNICODE)),
)


@dataclass(frozen=True)
class Preprocessors:
    """What turns raw inputs into a model's inputs; None where the repo has none of the kind.

    ``processor`` is a tokenizer and an image processor in one, for the model types whose export needs to see it.
    """

    tokenizer: Any = None
    image_processor: Any = None
    feature_extractor: Any = None
    processor: Any = None

    def __iter__(self) -> Iterator[Any]:
        parts = (self.tokenizer, self.processor, self.image_processor, self.feature_extractor)
        return (part for part in parts if part is not None)


@dataclass(frozen=True)
class Case:
    """One set of inputs.

    Attributes:
        name: what is special about it.
        inputs: keyword arguments of the PyTorch module; a KV cache is a tuple of tuples of tensors.
        feeds: the same for ONNX Runtime, flat, by the graph's input names.
        source: which inputs came from the tokenizer or processor.
    """

    name: str
    inputs: dict[str, Any]
    feeds: dict[str, np.ndarray]
    source: frozenset[str] = field(default=frozenset())


def make_cases(plan: GraphPlan, preprocessors: Preprocessors, onnx_inputs: Sequence[str]) -> list[Case]:
    """The cases of one graph, in a fixed order and with fixed contents.

    Args:
        onnx_inputs: names of the graph's inputs; the tracer drops those that nothing reads.
    """
    cases = []
    limit = no_padding_token.rows(plan)
    for shape in SHAPES:
        if limit is not None and shape.batch > limit:
            continue
        seed()
        given = dict(_from_preprocessors(plan, preprocessors, shape))
        length = next((value.shape[1] for name, value in given.items() if name.endswith("input_ids")), shape.length)
        dummies = dummy_inputs(plan, batch_size=shape.batch, sequence_length=min(length, positions(plan)))
        taken = set()
        for name, value in given.items():
            if name in dummies and _fits(value, dummies[name], plan.config.inputs.get(name, {})):
                dummies[name] = value.to(dummies[name].dtype)
                taken.add(name)
        if "input_ids" not in taken and shape.batch > 1:
            _pad(dummies)
        inputs = plan.config.rename_ambiguous_inputs(dict(dummies))
        cases.append(Case(shape.name, inputs, feeds(plan.config, dummies, onnx_inputs), frozenset(taken)))
    return cases


def _from_preprocessors(
    plan: GraphPlan, preprocessors: Preprocessors, shape: Shape
) -> Iterator[tuple[str, torch.Tensor]]:
    wanted = plan.config.inputs
    if preprocessors.tokenizer is not None and "input_ids" in wanted and not _holds_image_tokens(plan):
        encoded = _tokenize(preprocessors.tokenizer, shape.texts, positions(plan))
        vocabulary = getattr(plan.config._normalized_config, "vocab_size", None)
        if encoded is not None and (vocabulary is None or int(encoded["input_ids"].max()) < vocabulary):
            yield from encoded.items()
    if preprocessors.image_processor is not None and {"pixel_values", "flattened_patches"} & wanted.keys():
        sides = ((230, 311), (224, 224), (97, 160))
        images = [_image(*sides[index % len(sides)], seed=index) for index in range(shape.batch)]
        with suppress(TypeError):  # one that wants more than images (VitPose's: boxes); Optimum's dummies stand in
            try:
                made = preprocessors.image_processor(images, return_tensors="pt")
            except (
                ValueError
            ):  # one that leaves images as large as they are (Swin2SR's) makes no batch of several sizes
                images = [_image(*sides[shape.batch % len(sides)], seed=index) for index in range(shape.batch)]
                made = preprocessors.image_processor(images, return_tensors="pt")
            yield from _tensors(made)
    if preprocessors.feature_extractor is not None and {"input_values", "input_features"} & wanted.keys():
        rate = getattr(preprocessors.feature_extractor, "sampling_rate", 16000)
        sounds = [_sound(rate, seed=index) for index in range(shape.batch)]
        yield from _tensors(
            preprocessors.feature_extractor(sounds, sampling_rate=rate, padding=True, return_tensors="pt")
        )


def _holds_image_tokens(plan: GraphPlan) -> bool:
    """Whether the ids of a text have places for an image among them, as ColPali's; Optimum's dummies have them."""
    config = plan.config._config
    return "pixel_values" in plan.config.inputs and hasattr(getattr(config, "vlm_config", config), "image_token_index")


def _tokenize(tokenizer: Any, texts: Sequence[str], positions: int) -> dict[str, torch.Tensor] | None:
    longest = min(_LONGEST, positions, tokenizer.model_max_length)
    padding = tokenizer.pad_token is not None
    if not padding and len(texts) > 1:
        return None
    return dict(
        _tensors(tokenizer(list(texts), padding=padding, truncation=True, max_length=longest, return_tensors="pt"))
    )


def _tensors(batch: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, value) for name, value in batch.items() if isinstance(value, torch.Tensor))


def _fits(value: torch.Tensor, dummy: Any, dynamic: Mapping[int, str]) -> bool:
    """Whether ``value`` may stand in for ``dummy``: same rank and kind, and only dynamic axes differ."""
    if not isinstance(dummy, torch.Tensor) or dummy.dim() != value.dim():
        return False
    if dummy.is_floating_point() != value.is_floating_point():
        return False
    return all(a == b or axis in dynamic for axis, (a, b) in enumerate(zip(value.shape, dummy.shape, strict=True)))


def _pad(dummies: dict[str, Any]) -> None:
    """Mask the last three tokens of the first row: a batch whose rows differ in length."""
    mask = dummies.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape[1] > 4:
        mask = torch.ones_like(mask)
        mask[0, -3:] = 0
        dummies["attention_mask"] = mask


def feeds(config: OnnxConfig, dummies: Mapping[str, Any], onnx_inputs: Sequence[str]) -> dict[str, np.ndarray]:
    """Flatten as Optimum does in its own validation (``optimum/exporters/onnx/convert.py``, ``_run_validation``)."""
    renamed = config.rename_ambiguous_inputs(dict(dummies))
    flat: dict[str, np.ndarray] = {}
    for name, value in config.generate_dummy_inputs_for_validation(renamed, list(onnx_inputs)).items():
        if isinstance(value, (list, tuple)):
            parts = config.flatten_output_collection_property(name, value)
            flat.update({part: tensor.numpy() for part, tensor in parts.items()})
        elif isinstance(value, dict):
            flat.update({part: tensor.numpy() for part, tensor in value.items()})
        else:
            flat[name] = value.numpy()
    return {name: np.ascontiguousarray(flat[name]) for name in onnx_inputs if name in flat}


def positions(plan: GraphPlan) -> int:
    """Tokens that the model's position table holds; some tables (RoBERTa's) start counting behind the padding id."""
    config = plan.config._config
    names = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "seq_length")
    for part in (getattr(config, "decoder", None), getattr(config, "text_config", None), config):
        limits = [getattr(part, name, None) for name in names] if part is not None else []
        known = [limit for limit in limits if isinstance(limit, int) and limit > 4]
        if known:
            return min(known) - 2
    return 1 << 30


def _image(height: int, width: int, seed: int) -> np.ndarray:
    """RGB noise over a gradient: uint8 [height, width, 3]."""
    noise = np.random.default_rng(seed).integers(0, 96, (height, width, 3))
    gradient = np.linspace(0, 159, width)[None, :, None]
    return (noise + gradient).astype(np.uint8)


def _sound(rate: int, seed: int) -> np.ndarray:
    """One second and a bit of a tone in noise: float32 [samples]."""
    samples = rate + 1600 * (seed + 1)
    time = np.arange(samples) / rate
    noise = np.random.default_rng(seed).normal(0, 0.05, samples)
    return (np.sin(2 * np.pi * 440 * time) * 0.5 + noise).astype(np.float32)


def seed() -> None:
    """Optimum's generators draw from the global generators of torch and numpy."""
    torch.manual_seed(0)
    np.random.seed(0)
