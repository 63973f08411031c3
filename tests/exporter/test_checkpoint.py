"""A model folder is judged by its files alone: what is read, and how each bad one is refused."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optimum.exporters.tasks import TasksManager

import modelexport.plan  # noqa: F401  registers the ONNX configs with the TasksManager
from modelexport import checkpoint
from modelexport.contract import architectures
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointQuantizedError,
    CheckpointUnreadableError,
    ConfigInvalidError,
    ConfigMissingError,
    CustomCodeError,
    ModelExportError,
    SourceNotFoundError,
    UnsupportedArchitectureError,
    UnsupportedLibraryError,
)
from tests.exporter.folders import bert_shapes, write_model, write_safetensors


def test_a_sound_folder_is_read(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "generation_config.json").write_text("{}")
    (folder / "README.md").write_text("# hello")
    read = checkpoint.read(folder)
    assert (read.model_type, read.architectures, read.format, read.dtype) == (
        "bert",
        ("BertModel",),
        "safetensors",
        "float32",
    )
    assert (read.saved_by, read.saved_by_major, read.library) == ("4.40.0", 4, "transformers")
    assert read.tokenizer_files == ("tokenizer.json",)
    assert read.processor_files == ("preprocessor_config.json",)
    assert read.generation_config
    assert read.tensors.keys() == bert_shapes().keys()
    assert read.nbytes == sum(info.nbytes for info in read.tensors.values())


def test_a_tensor_lies_where_the_header_says(tmp_path: Path) -> None:
    read = checkpoint.read(write_model(tmp_path, shards=3))
    info = read.tensors["encoder.layer.0.output.dense.bias"]
    with (read.root / info.file).open("rb") as stream:
        stream.seek(info.offset)
        data = stream.read(info.nbytes)
    assert info.shape == (8,)
    assert len({data[i : i + 4] for i in range(0, info.nbytes, 4)}) == 1


def test_the_digests_are_those_of_the_files(tmp_path: Path) -> None:
    read = checkpoint.read(write_model(tmp_path, shards=2))
    for weight in read.weights:
        content = (tmp_path / weight.path).read_bytes()
        assert (weight.size, read.weight_digests()[weight.path]) == (len(content), hashlib.sha256(content).hexdigest())


def test_reading_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    write_model(tmp_path, {"auto_map": {"AutoConfig": "c.C"}})
    code = (
        "import sys; from pathlib import Path; from modelexport import checkpoint; "
        f"checkpoint.read(Path({str(tmp_path)!r})); "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    assert [weight.path for weight in checkpoint.read(tmp_path).weights] == ["model.safetensors"]


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    write_model(tmp_path, {"torch_dtype": "bfloat16"})
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    read = checkpoint.read(tmp_path)
    assert (read.format, read.dtype, dict(read.tensors)) == ("bin", "bfloat16", {})


def test_a_sentence_transformers_folder_is_recognised(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    assert checkpoint.read(tmp_path).library == "sentence_transformers"


def test_the_architecture_tells_a_missing_model_type(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = write_model(tmp_path, {"model_type": None, "architectures": ["RobertaForMaskedLM"]})
    read = checkpoint.read(folder)
    assert read.model_type == "roberta"
    assert "implies 'roberta'" in read.notes[0]


def test_a_snapshot_of_the_hub_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / ("a" * 40)
    write_model(tmp_path / "real")
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "real" / name).rename(repo / "blobs" / name)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert checkpoint.read(snapshot).model_type == "bert"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "folder")
    outside = tmp_path / "outside"
    outside.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(CheckpointUnreadableError, match="outside of the model folder"):
        checkpoint.read(folder)


@pytest.mark.parametrize("path", ["../model.safetensors", "/etc/passwd", "a/../../m", "..\\m", "C:m", "", "m\0"])
def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    folder = write_model(tmp_path / "folder", shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["pooler.dense.bias"] = path
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointUnreadableError, match="not a plain path"):
        checkpoint.read(folder)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(CheckpointUnreadableError, match="regular file"):
        checkpoint.read(folder)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(ModelExportError):
        checkpoint.read(folder)


def change_index(folder: Path, **changes: str | None) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del content["weight_map"][name]
        else:
            content["weight_map"][name] = value
    index.write_text(json.dumps(content))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointIncompleteError, match=r"model-00002-of-00002\.safetensors is missing"):
        checkpoint.read(folder)


def test_a_tensor_that_only_the_index_has_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    change_index(folder, more="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointIncompleteError, match="lists more"):
        checkpoint.read(folder)


def test_a_tensor_that_the_index_looks_for_in_another_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    names = list(bert_shapes())
    change_index(folder, **{names[0].replace(".", "__"): "model-00002-of-00002.safetensors"})
    with pytest.raises(CheckpointIncompleteError, match=r"word_embeddings\.weight"):
        checkpoint.read(folder)


def test_a_tensor_that_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    change_index(folder, pooler__dense__bias=None)
    with pytest.raises(CheckpointIncompleteError, match=r"The shards hold pooler\.dense\.bias"):
        checkpoint.read(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    write_safetensors(folder / "model-00002-of-00002.safetensors", bert_shapes())
    with pytest.raises(CheckpointUnreadableError, match="so its value is not known"):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{}"]
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_model(tmp_path, shards=2)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointUnreadableError, match=r"index\.json"):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "a config and no weights"),
        (["model-00001-of-00002.safetensors"], "no index that lists them"),
        (["tf_model.h5"], "TensorFlow only"),
        (["flax_model.msgpack", "tf_model.h5"], "TensorFlow and Flax only"),
    ],
)
def test_a_folder_without_weights_says_what_it_has(tmp_path: Path, files: list[str], says: str) -> None:
    (write_model(tmp_path) / "model.safetensors").unlink()
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointIncompleteError, match=says):
        checkpoint.read(tmp_path)


def test_weights_without_a_tensor_are_refused(tmp_path: Path) -> None:
    write_safetensors(write_model(tmp_path) / "model.safetensors", {})
    with pytest.raises(CheckpointIncompleteError, match="holds no tensors"):
        checkpoint.read(tmp_path)


def test_weights_of_another_framework_are_refused(tmp_path: Path) -> None:
    write_safetensors(write_model(tmp_path) / "model.safetensors", bert_shapes(), {"format": "tf"})
    with pytest.raises(CheckpointIncompleteError, match="TensorFlow"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({}, ConfigMissingError, "The folder is empty"),
        ({"model.safetensors": b""}, ConfigMissingError, r"The folder has model\.safetensors"),
        ({"m.Q4_K_M.gguf": b""}, ConfigMissingError, "GGUF files only"),
        ({"model.onnx": b""}, ConfigMissingError, "already holds ONNX"),
        ({"onnx/model.onnx": b""}, ConfigMissingError, r"onnx/model\.onnx"),
        ({"0_Transformer/config.json": b"{}"}, ConfigMissingError, "Export that folder itself"),
        (
            {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}'},
            ConfigMissingError,
            "adapter of org/base",
        ),
        ({"adapter_config.json": b"no"}, ConfigMissingError, "does not name"),
        ({"model_index.json": b"{}"}, UnsupportedLibraryError, "diffusers"),
        ({"open_clip_config.json": b"{}"}, UnsupportedLibraryError, "open_clip"),
        ({"m.keras": b""}, UnsupportedLibraryError, "Keras"),
        ({"params.json": b"{}"}, UnsupportedLibraryError, "reference code"),
    ],
)
def test_a_folder_without_a_config_says_what_it_seems_to_be(
    tmp_path: Path, files: dict[str, bytes], error: type[ModelExportError], says: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[]", "an object is expected"),
        (b"null", "an object is expected"),
        (b"{}", "no model_type"),
        (b'{"model_type": 3}', "no model_type"),
        (b'{"model_type": "bert", "architectures": "BertModel"}', "not a list of class names"),
        (b'{"model_type": "bert", "transformers_weights": "x"}', "transformers_weights"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (write_model(tmp_path) / "config.json").write_bytes(content)
    with pytest.raises(ConfigInvalidError, match=says):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, CheckpointQuantizedError, "gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, CheckpointQuantizedError, "bitsandbytes 4bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, CheckpointQuantizedError, "fp8"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, CheckpointQuantizedError, "text_config"),
        ({"quantization": {"bits": 4, "group_size": 64}}, CheckpointQuantizedError, "quantised"),
        ({"model_type": None, "pretrained_cfg": {}, "architecture": "resnet50"}, UnsupportedLibraryError, "timm"),
        ({"model_type": None, "_class_name": "UNet2DConditionModel"}, UnsupportedLibraryError, "diffusers"),
    ],
)
def test_what_cannot_be_exported_faithfully_is_refused(
    tmp_path: Path, config: dict[str, Any], error: type[ModelExportError], says: str
) -> None:
    content = {
        key: value
        for key, value in json.loads((write_model(tmp_path, config) / "config.json").read_text()).items()
        if value is not None
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(error, match=says):
        checkpoint.read(tmp_path)


def test_weights_of_eight_bits_are_refused_whatever_the_config_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    header = {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
    with pytest.raises(CheckpointQuantizedError, match="F8_E4M3"):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "my_model", "architectures": ["MyModel"]},
        {"model_type": "bert", "architectures": ["JinaBertForMaskedLM"]},
        {"model_type": "my_model", "architectures": None},
    ],
)
def test_a_model_made_of_code_from_the_repo_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    write_model(tmp_path, config | {"auto_map": {"AutoConfig": "c.MyConfig", "AutoModel": "m.MyModel"}})
    with pytest.raises(CustomCodeError, match="Code from a repo is not run unless"):
        checkpoint.read(tmp_path)


def test_a_model_that_transformers_took_over_is_read_in_spite_of_its_auto_map(tmp_path: Path) -> None:
    write_model(tmp_path, {"auto_map": {"AutoConfig": "c.MyConfig", "AutoModel": "m.MyModel"}})
    assert checkpoint.read(tmp_path).model_type == "bert"


def test_a_file_that_may_not_be_read_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path)

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointUnreadableError, match="cannot be read"):
        checkpoint.read(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="not a folder"):
        checkpoint.read(tmp_path / "nothing")


def test_the_listed_architectures_are_those_that_optimum_exports() -> None:
    exported = {name for name, exporters in TasksManager._SUPPORTED_MODEL_TYPE.items() if "onnx" in exporters}
    assert exported == architectures.MODEL_TYPES


def test_only_a_known_other_architecture_is_refused_by_its_config_alone() -> None:
    architectures.require_known({})
    architectures.require_known({"model_type": "bert"})
    architectures.require_known({"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}})
    with pytest.raises(UnsupportedArchitectureError, match="'mine'"):
        architectures.require_known({"model_type": "mine"})
