"""What transformers 5 writes into a config and 4.57 does not read: the reviewed list.

Made by comparing, for every model type that Optimum exports, the fields of the config classes and the names that the
modelling code reads, in 5.23.0 and 4.57.6 (``tests/fixtures_v5/schema.py``; a test holds this list against its result).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelexport.bridge.rope import translate_rope
from modelexport.bridge.section import Section

REVIEWED = (5, 23)
"""The newest release whose configs were reviewed."""


@dataclass(frozen=True)
class Neutral:
    """A key that 4.57 does not read, harmless as long as it holds what 4.57 always does."""

    accepts: Callable[[Any, Section], bool]
    always: str
    model_types: frozenset[str] | None = None  # None: every model type


def _one_of(*values: Any) -> Callable[[Any, Section], bool]:
    return lambda value, _: value in values


def _head_dim(value: Any, section: Section) -> bool:
    width = next((section.values[k] for k in ("hidden_size", "d_model", "n_embd") if k in section.values), None)
    heads = next(
        (
            section.values[k]
            for k in ("num_attention_heads", "decoder_attention_heads", "encoder_attention_heads", "n_head")
            if k in section.values
        ),
        None,
    )
    return value is None or (
        isinstance(width, int) and isinstance(heads, int) and heads > 0 and value == width // heads
    )


def _sam_scale(value: Any, section: Section) -> bool:
    return bool(value == section.values.get("hidden_size", 0) // 2)


def _all_two(value: Any, _: Section) -> bool:
    return isinstance(value, list) and set(value) <= {2}


NEUTRAL: Mapping[str, Neutral] = {
    "head_dim": Neutral(_head_dim, "the width divided by the number of heads"),
    "use_bidirectional_attention": Neutral(_one_of(None, False), "causal attention"),
    "swiglu_alpha": Neutral(_one_of(1.702), "1.702"),
    "swiglu_limit": Neutral(_one_of(7.0), "7.0"),
    "rope_theta": Neutral(_one_of(10000.0, None), "10000", frozenset({"esm"})),
    "scale": Neutral(_sam_scale, "half the width", frozenset({"sam", "sam_vision_model"})),
    "output_router_logits": Neutral(_one_of(None, False), "no router logits among the outputs"),
    "is_encoder_decoder": Neutral(_one_of(False), "no encoder"),
    "stem_strides": Neutral(_one_of([2, 1, 1, 2, 1]), "the strides 2, 1, 1, 2, 1", frozenset({"hgnet_v2"})),
    "stage_downsample_strides": Neutral(_all_two, "the stride 2 in every stage", frozenset({"hgnet_v2"})),
    "output_stride": Neutral(_one_of(None), "the backbone's own stride", frozenset({"timm_backbone"})),
}

NO_EFFECT: Mapping[str, str] = {
    "initializer_range": "training starts from it",
    "initializer_factor": "training starts from it",
    "num_nextn_predict_layers": "neither release builds the layers that predict further tokens",
    "backend": "names the tokenizer library",
    "_name_or_path": "where the checkpoint was when it was saved",
    "_attn_implementation_autoset": "bookkeeping of older releases",
    "tie_last_hidden_states": "unset means the model's own choice",
}
"""Keys that change nothing that a model computes, and why."""


def _modernbert_layers(section: Section) -> None:
    """4.57 knows only the period of the global layers: every n-th is global, the first always."""
    layer_types = section.values.get("layer_types")
    if not isinstance(layer_types, list):
        return
    for period in range(1, len(layer_types) + 1):
        pattern = ["sliding_attention" if i % period else "full_attention" for i in range(len(layer_types))]
        if pattern == layer_types:
            section.values["global_attn_every_n_layers"] = period
            return
    section.stop("layer_types", "only patterns that repeat from the first layer on can be written there")


def _experts(section: Section) -> None:
    section.values["num_experts"] = section.values["num_local_experts"]


def _token_indices(section: Section) -> None:
    """5.x keeps one name for each special token; 4.57's XLM reads the older ones, and masks by ``pad_index``."""
    for name in ("pad", "bos", "eos"):
        if section.values.get(f"{name}_token_id") is not None:
            section.values.setdefault(f"{name}_index", section.values[f"{name}_token_id"])


def _t5_head(section: Section) -> None:
    """4.57 reads two things from ``tie_word_embeddings``: whether the head is tied, and whether its input is scaled.

    5.x always ties where the checkpoint holds no head, and says in ``scale_decoder_outputs`` whether to scale; its mT5
    never scales. Unscaled and tied can be said in 4.57 only by leaving the flag off and tying by hand.
    """
    scaled = section.values.get("scale_decoder_outputs", False) and section.model_type != "mt5"
    section.values["tie_word_embeddings"] = bool(scaled)
    if not scaled:
        section.ties[f"{_module(section)}lm_head.weight"] = f"{_module(section)}shared.weight"


def _module(section: Section) -> str:
    return section.path.replace("_config.", ".")


def _backbone(section: Section) -> None:
    """5.x writes ``backbone_config`` alone; the defaults of 4.57's DETR would add a second backbone to it."""
    if section.values.get("backbone_config") is not None:
        section.values.update(
            backbone=None, use_timm_backbone=False, use_pretrained_backbone=False, backbone_kwargs=None
        )


@dataclass(frozen=True)
class Translation:
    """A rewrite of a section, applied where ``model_types`` and ``key`` say so.

    Attributes:
        rewrite: changes ``section.values``, or stops.
        key: the 5.x key that it is about.
        note: tells the user.
        model_types: None for every one.
        beside: further keys that it reads, and so accounts for.
    """

    rewrite: Callable[[Section], None]
    key: str
    note: str
    model_types: frozenset[str] | None = None
    beside: frozenset[str] = frozenset()

    def applies(self, section: Section) -> bool:
        return self.key in section.values and (self.model_types is None or section.model_type in self.model_types)


TRANSLATIONS: tuple[Translation, ...] = (
    Translation(
        translate_rope, "rope_parameters", "rope_parameters was written as the fields that transformers 4.57 reads"
    ),
    Translation(
        _modernbert_layers,
        "layer_types",
        "layer_types was written as global_attn_every_n_layers",
        frozenset({"modernbert"}),
    ),
    Translation(
        _experts, "num_local_experts", "num_local_experts was written as num_experts", frozenset({"qwen3_moe"})
    ),
    Translation(
        _t5_head,
        "tie_word_embeddings",
        "tie_word_embeddings was set to what makes transformers 4.57 scale and tie the head as 5 does",
        frozenset({"t5", "longt5", "mt5"}),
        beside=frozenset({"scale_decoder_outputs"}),
    ),
    Translation(
        _token_indices,
        "pad_token_id",
        "the ids of the special tokens were also written as pad_index, bos_index and eos_index",
        frozenset({"xlm", "flaubert"}),
    ),
    Translation(_backbone, "backbone_config", "the backbone was named by backbone_config alone"),
)

DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("mistral", "head_dim"): 128,
    ("esm", "eos_token_id"): 2,
    ("flaubert", "eos_token_id"): 1,
    ("xlm", "eos_token_id"): 1,
    ("mt5", "tie_word_embeddings"): True,
}
"""(model type, key) to the default of 5.x where 4.57 has another: filled in where a file leaves the key out."""
