"""The reviewed list accounts for everything that transformers 5.23 writes or reads and 4.57 does not."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optimum.exporters.onnx")

from modelexport.bridge import config as bridge_config
from modelexport.bridge import rules
from modelexport.bridge.config import is_from_5, translate
from modelexport.bridge.section import Section, root_class
from modelexport.contract.errors import CheckpointTooNewError
from tests.fixtures_v5 import checkpoints

pytestmark = pytest.mark.engine
SCHEMA: dict[str, dict[str, Any]] = json.loads((Path(checkpoints.__file__).parent / "schema.json").read_text())
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
STOPPED = {"colpali"}  # its text model is bidirectional in 5.x
TYPES = sorted(model_type for model_type in SCHEMA if root_class(model_type) is not None and model_type not in STOPPED)

RIGHT_BY_DEFAULT = {
    "position_embedding_type": "5.x computes absolute positions, which is the default",
    "post_init": "training",
    "verbose": "logging",
    "repad_logits_with_grad": "training",
    "reference_compile": "a matter of speed",
    "num_labels": "as many as id2label has",
    "use_cache": "asked for at each call",
    "hidden_activation": "an older name of hidden_act; None means that one",
    "rope_scaling": "None unless rope_parameters says otherwise",
    "text_config": "a part of vlm_config",
    "backbone": "None, or written by the translation of backbone_config",
    "backbone_kwargs": "like backbone",
    "use_timm_backbone": "like backbone",
    "use_pretrained_backbone": "like backbone",
}
"""Arguments of 4.57 that 5.x no longer writes and whose default is what 5.x computes."""


def sections(model_type: str, values: dict[str, Any]) -> list[Section]:
    config_class = root_class(model_type)
    assert config_class is not None
    return list(Section(values, config_class).sections())


def accounted_for(section: Section, key: str) -> bool:
    return (
        section.reads(key)
        or key in rules.NO_EFFECT
        or key in rules.NEUTRAL
        or key == "model_type"
        or section.is_sub_config(key)
        or any(
            key in {t.key, *t.beside} and (t.model_types is None or section.model_type in t.model_types)
            for t in rules.TRANSLATIONS
        )
    )


@pytest.mark.parametrize("model_type", TYPES)
def test_every_key_that_transformers_5_writes_is_accounted_for(model_type: str) -> None:
    for section in sections(model_type, SCHEMA[model_type]["written"]):
        unknown = [key for key in section.values if not accounted_for(section, key)]
        assert unknown == [], f"{section.path}{unknown}"


@pytest.mark.parametrize("model_type", TYPES)
def test_every_key_that_the_models_of_transformers_5_read_is_accounted_for(model_type: str) -> None:
    parts = sections(model_type, SCHEMA[model_type]["written"])
    unknown = [key for key in SCHEMA[model_type]["read"] if not any(accounted_for(part, key) for part in parts)]
    assert unknown == []


@pytest.mark.parametrize("model_type", TYPES)
def test_default_configs_are_translated_and_none_of_their_values_is_lost(model_type: str) -> None:
    written = SCHEMA[model_type]["written"] | {"transformers_version": "5.23.0", "model_type": model_type}
    translated = translate(written, model_type).config
    for before, after in zip(sections(model_type, dict(written)), sections(model_type, dict(translated)), strict=True):
        for key, value in before.values.items():
            if not isinstance(value, dict) and key not in ("tie_word_embeddings", "rope_scaling"):
                assert after.values[key] == value, f"{before.path}{key}"
        missing = [
            name
            for name in sorted(declared(after))
            if not (after.values.keys() & {name, after.config_class.attribute_map.get(name)})
        ]
        assert [name for name in missing if name not in RIGHT_BY_DEFAULT] == [], after.path


def declared(section: Section) -> set[str]:
    """Arguments of 4.57's class that are its own."""
    from transformers import PretrainedConfig

    base = set(PretrainedConfig().to_dict())
    probe = section.config_class.__init__.__code__
    names = probe.co_varnames[1 : probe.co_argcount + probe.co_kwonlyargcount]
    return {name for name in names if name not in base}


@pytest.mark.parametrize(
    ("model_type", "change", "named"),
    [
        ("llama", {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e4}}, "rope_parameters.rope_type"),
        ("llama", {"rope_parameters": LINEAR | {"mrope_section": [1]}}, "mrope_section"),
        ("llama", {"rope_parameters": {"rope_type": "default"}}, "rope_parameters.rope_theta"),
        ("llama", {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": LINEAR}}, "rope_parameters"),
        ("llama", {"rope_parameters": LINEAR | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("nemotron", {"rope_parameters": LINEAR}, "rope_type"),
        ("olmo", {"rope_parameters": LINEAR | {"rope_type": "llama3"}}, "rope_type"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gpt_oss", {"swiglu_limit": 3.0}, "swiglu_limit"),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("vit", {"head_dim": 7}, "head_dim"),
        ("bert", {"transformers_version": "5.99.0", "entirely_new": 1}, "entirely_new"),
    ],
)  # fmt: skip
def test_what_has_no_equivalent_stops_and_names_the_key(model_type: str, change: dict[str, Any], named: str) -> None:
    written = SCHEMA[model_type]["written"] | {"transformers_version": "5.23.0", "model_type": model_type} | change
    with pytest.raises(CheckpointTooNewError, match=named.replace(".", r"\.")):
        translate(written, model_type)


def test_a_key_that_no_release_reads_is_kept_and_noted() -> None:
    written = SCHEMA["bert"]["written"] | {
        "transformers_version": "5.23.0",
        "model_type": "bert",
        "gradient_checkpointing": False,
    }
    translated = translate(written, "bert")
    assert translated.config["gradient_checkpointing"] is False
    assert any("gradient_checkpointing" in note for note in translated.notes)


def test_the_older_names_of_special_tokens_are_written_for_xlm() -> None:
    written = SCHEMA["xlm"]["written"] | {"transformers_version": "5.23.0", "model_type": "xlm", "pad_token_id": 5}
    assert translate(written, "xlm").config["pad_index"] == 5


def test_special_floats_become_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left as they are, 4.57 would hand the model an object in the place of a number."""
    written = {"transformers_version": "5.23.0", "model_type": "bert", "layer_norm_eps": {"__float__": "Infinity"}}
    config_class = root_class("bert")
    assert config_class is not None
    assert config_class.from_dict(dict(translate(written, "bert").config)).layer_norm_eps == float("inf")
    monkeypatch.setattr(bridge_config, "_decode_floats", lambda value: value)
    assert config_class.from_dict(dict(translate(written, "bert").config)).layer_norm_eps != float("inf")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"transformers_version": "4.57.6"}, False),
        ({"transformers_version": "5.0.0.dev0"}, True),
        ({}, False),
        ({"rope_parameters": {}}, True),
        ({"transformers_version": "4.30.0", "text_config": {"rope_parameters": {}}}, True),
        ({"transformers_version": None}, False),
    ],
)
def test_configs_of_transformers_5_are_recognised(config: dict[str, Any], expected: bool) -> None:
    assert is_from_5(config) is expected
