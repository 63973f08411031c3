"""Checkpoints saved by transformers 5 compute in our hands what they compute there."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from modelexport import bridge, checkpoint, load
from modelexport.bridge import config as bridge_config
from modelexport.bridge import experts, preparing, rope, rules, weights
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointMismatchError,
    CheckpointTooNewError,
    ConfigInvalidError,
)
from tests.fixtures_v5 import checkpoints
from tests.fixtures_v5.inputs import inputs_for, meaningful
from tests.fixtures_v5.models import MODELS, Model

pytestmark = pytest.mark.engine
TOLERANCE = 1e-4
BY_NAME = {model.name: model for model in MODELS}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def error_of(model: Model, folder: Path) -> float:
    """The largest difference from transformers 5, over the positions that are not padding."""
    read = checkpoint.read(checkpoints.build(model.name, folder / "checkpoint"))
    prepared = bridge.prepare(read, folder / "scratch")
    if model.task is None:
        loaded = getattr(transformers, model.model_class).from_pretrained(
            prepared.folder, key_mapping=prepared.key_mapping
        )
    else:
        loaded = load.load_model(prepared, read, model.task, torch.float32).model
    inputs = inputs_for(read.config)
    with torch.no_grad():
        outputs = loaded(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    output = outputs[model.output or 0].numpy()
    reference = checkpoints.reference(model.name)
    assert output.shape == reference.shape
    return float(np.abs(meaningful(output, inputs) - meaningful(reference, inputs)).max())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_checkpoint_of_transformers_5_computes_the_same(model: Model, tmp_path: Path) -> None:
    assert error_of(model, tmp_path) < TOLERANCE


def test_the_fixtures_hold_every_kind_of_rotation_and_enough_model_types() -> None:
    kinds = {model.rotation for model in MODELS} - {None}
    assert kinds == {"default", "linear", "dynamic", "yarn", "llama3", "longrope", "per-layer"}
    types = {
        json.loads((checkpoints.DATA / model.name / "config.json").read_text())["model_type"]: model.rotation
        is not None
        for model in MODELS
    }
    assert sum(types.values()) >= 15
    assert len(types) - sum(types.values()) >= 5


@pytest.mark.parametrize(
    ("lost", "fixture"),
    [
        ("rope_parameters", "llama_theta"),
        ("rope_parameters", "llama_llama3"),
        ("rope_parameters", "gemma3_layers"),
        ("rope_parameters", "gpt_neox_share"),
        ("layer_types", "modernbert_layers"),
        ("num_local_experts", "qwen3_moe"),
        ("tie_word_embeddings", "t5_unscaled"),
        ("tie_word_embeddings", "t5_untied"),
        ("backbone_config", "detr_backbone"),
        ("pad_token_id", "xlm_padding"),
        ("rope_parameters", "modernbert_layers"),
        ("rope_parameters", "stablelm_share"),
        ("rope_parameters", "mistral_longrope"),
        ("tie_word_embeddings", "mt5"),
    ],
)
def test_without_a_translation_its_model_is_wrong(
    lost: str, fixture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutated = tuple(replace(t, rewrite=lambda _: None) if t.key == lost else t for t in rules.TRANSLATIONS)
    assert mutated != rules.TRANSLATIONS
    monkeypatch.setattr(bridge_config, "TRANSLATIONS", mutated)
    refused = (CheckpointMismatchError, CheckpointIncompleteError, CheckpointTooNewError, ConfigInvalidError)
    with suppress(*refused):
        assert error_of(BY_NAME[fixture], tmp_path) > 10 * TOLERANCE


@pytest.mark.parametrize("fixture", ["vit_msn_renamed", "clip_vision_renamed", "siglip_vision_renamed"])
def test_without_the_renames_the_weights_are_missed(
    fixture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "renames", lambda *_: None)
    with pytest.raises(CheckpointTooNewError, match="some of its weights have names"):
        error_of(BY_NAME[fixture], tmp_path)


@pytest.mark.parametrize(
    ("fixture", "pattern"),
    [
        (name, pattern)
        for name, model_type in (("vit_mae_renamed", "vit_mae"), ("data2vec_vision_renamed", "data2vec-vision"))
        for pattern in weights.RENAMES[model_type]
    ],
)
def test_without_one_rename_its_weights_are_missed(
    fixture: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = {
        model_type: {key: value for key, value in patterns.items() if key != pattern}
        for model_type, patterns in weights.RENAMES.items()
    }
    assert renames != weights.RENAMES
    monkeypatch.setattr(weights, "RENAMES", renames)
    with suppress(CheckpointTooNewError):
        assert not error_of(BY_NAME[fixture], tmp_path) < 10 * TOLERANCE


FUSED = [model for model in MODELS if model.fused]


@pytest.mark.parametrize("model", FUSED, ids=lambda model: model.name)
def test_experts_that_are_not_read_apart_are_missed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "split", lambda _: None)
    with pytest.raises((CheckpointTooNewError, CheckpointIncompleteError)):
        error_of(model, tmp_path)


@pytest.mark.parametrize("mixed_up", ["gate and up", "experts"])
def test_experts_read_from_elsewhere_are_wrong(mixed_up: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(read: checkpoint.Checkpoint) -> experts.Split | None:
        split = experts.split(read)
        assert split is not None
        pieces = dict(split.pieces)
        for name, piece in split.pieces.items():
            if mixed_up == "gate and up" and name.endswith("gate_proj.weight"):
                up = name.replace("gate_proj", "up_proj")
                pieces[name], pieces[up] = split.pieces[up], piece
            elif mixed_up == "experts" and ".experts.0." in name:
                other = name.replace(".experts.0.", ".experts.1.")
                pieces[name], pieces[other] = split.pieces[other], piece
        return replace(split, pieces=pieces)

    monkeypatch.setattr(preparing, "split", wrong)
    assert error_of(BY_NAME["qwen3_moe_fused"], tmp_path) > 10 * TOLERANCE


def test_fused_experts_stay_in_the_memory_mapped_file(tmp_path: Path) -> None:
    read = checkpoint.read(checkpoints.build("qwen3_moe_fused", tmp_path / "checkpoint"))
    prepared = bridge.prepare(read, tmp_path / "scratch")
    assert prepared.split is not None
    tensors = prepared.split.load(prepared.folder)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "model.safetensors" in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    stored = (read.root / "model.safetensors").read_bytes()
    for name, tensor in tensors.items():
        info = prepared.split.tensors[name]
        assert any(start <= tensor.data_ptr() < end for start, end in spans), name
        assert tuple(tensor.shape) == info.shape and tensor.is_contiguous()
        assert stored[info.offset : info.offset + info.nbytes] == tensor.numpy().tobytes(), name


def test_shards_and_the_generation_config_of_a_fused_checkpoint_are_read(tmp_path: Path) -> None:
    folder = checkpoints.build("qwen3_moe_fused", tmp_path / "checkpoint")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    halves = [dict(list(tensors.items())[number::2]) for number in range(2)]
    weight_map = {}
    for file, half in zip(files, halves, strict=True):
        safetensors.torch.save_file(half, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 17}))
    read = checkpoint.read(folder)
    model = load.load_model(bridge.prepare(read, tmp_path / "scratch"), read, "text-generation", torch.float16).model
    assert model.generation_config.max_new_tokens == 17
    assert model.dtype == torch.float16
    expert = model.get_parameter("model.layers.1.mlp.experts.3.up_proj.weight")
    assert torch.equal(expert, tensors["model.layers.1.mlp.experts.gate_up_proj"][3, 16:].half())


def test_experts_in_another_layout_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.build("olmoe_fused", tmp_path / "checkpoint")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("gate_up_proj"):
            tensors[name] = tensor.transpose(1, 2).contiguous()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    read = checkpoint.read(folder)
    with pytest.raises((CheckpointMismatchError, CheckpointTooNewError)):
        load.load_model(bridge.prepare(read, tmp_path / "scratch"), read, "text-generation", torch.float32)


def test_without_the_length_and_the_factor_longrope_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope, "_longrope", lambda *_: None)
    assert error_of(BY_NAME["mistral_longrope"], tmp_path) > 10 * TOLERANCE


def test_without_tying_by_hand_the_head_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_tie", lambda *_: None)
    with pytest.raises(CheckpointIncompleteError, match=r"lm_head\.weight"):
        error_of(BY_NAME["t5_unscaled"], tmp_path)


def test_without_eager_attention_soft_capping_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "attention_for", lambda _: "sdpa")
    assert error_of(BY_NAME["gemma2_softcapping"], tmp_path) > 10 * TOLERANCE


def test_a_checkpoint_of_transformers_4_is_left_alone(tmp_path: Path) -> None:
    folder = checkpoints.build("bert", tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text()) | {"transformers_version": "4.41.0"}
    (folder / "config.json").write_text(json.dumps(config))
    prepared = bridge.prepare(checkpoint.read(folder), tmp_path / "scratch")
    assert prepared.folder == folder
    assert prepared.notes == ()
    assert not (tmp_path / "scratch").exists()
