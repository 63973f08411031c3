"""``AutoModelForONNX``: the right class for a folder or repo, and nothing else downloaded."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import constants, file_download
from optimum.onnxruntime import (
    ORTModelForCustomTasks,
    ORTModelForFeatureExtraction,
    ORTModelForSeq2SeqLM,
    ORTModelForSequenceClassification,
)
from transformers import AutoTokenizer

from modelexport import AutoModelForONNX, source
from modelexport.contract.errors import (
    ConfigMissingError,
    FolderInvalidError,
    OptimumLoadFailedError,
    RepoNotFoundError,
    RevisionNotFoundError,
    SourceNotFoundError,
    UnsupportedArchitectureError,
)
from modelexport.contract.manifest import MANIFEST_NAME, Options
from modelexport.export import Origin, export
from tests.exporter.htp_models import exported
from tests.hub.client import REPOSITORY, LocalHub
from tests.zoo.build import build
from tests.zoo.models import find


@pytest.fixture
def folder(exported_bert: Path, tmp_path: Path) -> Path:
    """A repo as we publish it: everything in ``onnx/``."""
    shutil.copytree(exported_bert, tmp_path / "repo" / "onnx")
    return tmp_path / "repo"


def save_config(name: str, folder: Path) -> None:
    config = exported(name).model.config
    config.architectures = [type(exported(name).model).__name__]
    config.save_pretrained(folder)


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import sys, modelexport; sys.exit(bool({'torch', 'transformers', 'optimum'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_there_is_no_other_attribute() -> None:
    import modelexport

    with pytest.raises(AttributeError, match="AutoModelForTF"):
        _ = modelexport.AutoModelForTF


def test_the_manifest_names_the_class(folder: Path) -> None:
    model = AutoModelForONNX.from_pretrained(folder)
    assert type(model) is ORTModelForFeatureExtraction
    tokens = AutoTokenizer.from_pretrained(folder / "onnx")("Hello world!", return_tensors="pt")
    assert model(**tokens).last_hidden_state.shape[-1] == 32


def test_a_folder_that_holds_the_files_itself_works_too(exported_bert: Path) -> None:
    assert type(AutoModelForONNX.from_pretrained(str(exported_bert))) is ORTModelForFeatureExtraction


def test_without_a_manifest_the_architecture_decides(folder: Path) -> None:
    (folder / "onnx" / MANIFEST_NAME).unlink()
    assert type(AutoModelForONNX.from_pretrained(folder)) is ORTModelForFeatureExtraction


def test_a_config_around_the_folder_is_good_enough(folder: Path) -> None:
    (folder / "onnx" / MANIFEST_NAME).unlink()
    (folder / "onnx" / "config.json").rename(folder / "config.json")
    assert type(AutoModelForONNX.from_pretrained(folder)) is ORTModelForFeatureExtraction


def test_the_task_can_be_overridden(folder: Path) -> None:
    model = AutoModelForONNX.from_pretrained(folder, task="text-classification")
    assert type(model) is ORTModelForSequenceClassification


def test_options_reach_optimum(folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = AutoModelForONNX.from_pretrained(folder, session_options=options)
    assert model.session.get_session_options().intra_op_num_threads == 1


def test_an_encoder_decoder_is_loaded_whole(tmp_path: Path) -> None:
    for file in exported("bart").files.values():
        shutil.copy(file, tmp_path)
    save_config("bart", tmp_path)
    model = AutoModelForONNX.from_pretrained(tmp_path, use_cache=True)
    assert type(model) is ORTModelForSeq2SeqLM


def test_features_of_an_encoder_decoder_are_features(tmp_path: Path) -> None:
    shutil.copy(exported("bart").files["encoder_model"], tmp_path / "model.onnx")
    save_config("bart", tmp_path)
    assert type(AutoModelForONNX.from_pretrained(tmp_path)) is ORTModelForFeatureExtraction


@pytest.mark.parametrize(
    ("model_type", "task"), [("gpt2", "text-generation"), ("bart", "text2text-generation")], ids=["one", "a pair"]
)
@pytest.mark.parametrize("manifest", [True, False], ids=["with manifest", "without"])
def test_graphs_without_cache_generate(tmp_path: Path, model_type: str, task: str, manifest: bool) -> None:
    """``generate`` of Optimum's own ``from_pretrained(folder)`` fails on them."""
    model = build(find(model_type), task, tmp_path / "model")
    export(model, out := tmp_path / "out", Options(task=task), origin=Origin(), overwrite=False, emit=lambda _: None)
    if not manifest:
        (out / MANIFEST_NAME).unlink()
    loaded = AutoModelForONNX.from_pretrained(out)
    ids = torch.tensor([[1, 9, 7]])
    assert loaded.generate(input_ids=ids, max_new_tokens=3, min_new_tokens=3).shape[1] >= 4
    with pytest.raises((ValueError, OptimumLoadFailedError), match=r"use_cache=True|with_past"):
        AutoModelForONNX.from_pretrained(out, use_cache=True, task=task).generate(input_ids=ids, max_new_tokens=3)


def test_nothing_is_exported_on_the_way(bert: Path) -> None:
    with pytest.raises(FolderInvalidError, match="No ONNX file"):
        AutoModelForONNX.from_pretrained(bert)


def test_a_missing_config_is_said(folder: Path) -> None:
    (folder / "onnx" / "config.json").unlink()
    with pytest.raises(ConfigMissingError, match=r"config\.json"):
        AutoModelForONNX.from_pretrained(folder)


def change_config(folder: Path, model_type: str, architecture: str) -> None:
    (folder / "onnx" / MANIFEST_NAME).unlink()
    config = json.loads((folder / "onnx" / "config.json").read_text())
    config.update(model_type=model_type, architectures=[architecture])
    (folder / "onnx" / "config.json").write_text(json.dumps(config))


def test_a_task_without_a_class_of_its_own_gets_the_one_for_any(folder: Path) -> None:
    change_config(folder, "yolos", "YolosForObjectDetection")
    assert type(AutoModelForONNX.from_pretrained(folder)) is ORTModelForCustomTasks


def test_a_model_type_that_optimum_does_not_know_is_said(folder: Path) -> None:
    change_config(folder, "fnet", "FNetModel")
    with pytest.raises(UnsupportedArchitectureError, match="fnet"):
        AutoModelForONNX.from_pretrained(folder)


def test_a_broken_graph_is_said(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(OptimumLoadFailedError, match="ORTModelForFeatureExtraction cannot load"):
        AutoModelForONNX.from_pretrained(folder)


def test_neither_folder_nor_repo(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        AutoModelForONNX.from_pretrained(str(tmp_path / "nothing"))


# --- from the Hub ----------------------------------------------------------------------------------------------------

HUB_PYTHON = os.environ.get("MODELEXPORT_HUB_PYTHON") or str(REPOSITORY / ".venv" / "bin" / "python")
needs_hub = pytest.mark.skipif(not Path(HUB_PYTHON).exists(), reason="the local Hub needs the bot's environment")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A local Hub that this process's client talks to, with an empty cache."""
    with LocalHub(tmp_path / "hub", python=HUB_PYTHON) as running:
        running.create_user("acme")
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


def downloaded(cache: Path) -> set[str]:
    (snapshot,) = cache.glob("models--*/snapshots/*")
    return {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}


@needs_hub
def test_of_a_repo_only_what_is_needed_is_downloaded(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "onnx/model_quantized.onnx", "onnx/model_fp16.onnx"):
        (folder / name).write_bytes(b"large")
    hub.seed_repo("acme/bert", folder)
    model = AutoModelForONNX.from_pretrained("acme/bert", cache_dir=tmp_path / "cache")
    assert type(model) is ORTModelForFeatureExtraction
    assert downloaded(tmp_path / "cache") == {"onnx/model.onnx", "onnx/config.json", f"onnx/{MANIFEST_NAME}"}
    hub.stop()
    again = AutoModelForONNX.from_pretrained("acme/bert", cache_dir=tmp_path / "cache", local_files_only=True)
    assert type(again) is ORTModelForFeatureExtraction


@needs_hub
def test_external_data_and_a_config_outside_are_found(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    (folder / "onnx" / MANIFEST_NAME).unlink()
    (folder / "onnx" / "config.json").rename(folder / "config.json")
    proto = onnx.load(folder / "onnx" / "model.onnx")
    onnx.save(proto, folder / "onnx" / "model.onnx", save_as_external_data=True, location="model.onnx_data")
    hub.seed_repo("acme/bert", folder)
    model = AutoModelForONNX.from_pretrained("acme/bert", cache_dir=tmp_path / "cache")
    assert type(model) is ORTModelForFeatureExtraction
    assert downloaded(tmp_path / "cache") == {"onnx/model.onnx", "onnx/model.onnx_data", "config.json"}


@needs_hub
def test_what_the_hub_refuses_is_a_typed_error(hub: LocalHub, bert: Path, tmp_path: Path) -> None:
    hub.seed_repo("acme/bert", bert)
    with pytest.raises(FolderInvalidError, match="acme/bert has no ONNX files"):
        AutoModelForONNX.from_pretrained("acme/bert", cache_dir=tmp_path / "cache")
    with pytest.raises(RevisionNotFoundError, match="v9"):
        AutoModelForONNX.from_pretrained("acme/bert", revision="v9", cache_dir=tmp_path / "cache")
    with pytest.raises(RepoNotFoundError, match="acme/bort"):
        AutoModelForONNX.from_pretrained("acme/bort", cache_dir=tmp_path / "cache")


@needs_hub
def test_a_repo_that_nothing_exports_is_refused_before_its_weights_are_downloaded(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.seed_repo("acme/mystery", {"config.json": '{"model_type": "mystery"}', "model.safetensors": b"large"})
    with pytest.raises(UnsupportedArchitectureError, match="'mystery'"):
        source.locate("acme/mystery", None)
    assert not [entry for entry in hub.journal() if "resolve" in (entry["route"] or "")]
