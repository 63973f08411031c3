"""Checkpoints in reduced precision and in other formats: what is exported, and what it is held against."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from optimum.exporters.onnx import main_export
from safetensors.torch import load_file, save_file

from modelexport import convert
from modelexport.contract.errors import OptionsInvalidError, ParityFailedError
from modelexport.contract.manifest import Manifest, Options
from modelexport.export import Origin, export
from modelexport.parity.arithmetic import OtherArithmetic, other_dtype
from tests.zoo.build import build
from tests.zoo.models import find

MODELS = [
    ("bert", "text-classification"),
    ("gpt2", "text-generation-with-past"),
    ("t5", "text2text-generation-with-past"),
    ("llama", "text-generation-with-past"),
    ("vit", "image-classification"),
]


def stored(folder: Path, model_type: str, task: str, dtype: torch.dtype, file: str) -> Path:
    """A tiny model whose weights are kept in ``dtype``."""
    source = build(find(model_type), task, folder)
    weights = source / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
    weights.unlink()
    if file == "model.safetensors":
        save_file(tensors, weights, metadata={"format": "pt"})
    elif file == "pytorch_model.bin":
        torch.save(tensors, source / file)
    else:
        names = sorted(tensors)
        shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for shard, part in shards.items():
            save_file({name: tensors[name] for name in part}, source / shard, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}
        (source / file).write_text(json.dumps(index))
    config = json.loads((source / "config.json").read_text())
    config["dtype"] = config["torch_dtype"] = str(dtype).removeprefix("torch.")
    (source / "config.json").write_text(json.dumps(config))
    return source


def run(source: Path, out: Path, task: str, **options: object) -> Manifest:
    chosen = Options.model_validate({"task": task, **options})
    return export(source, out, chosen, origin=Origin(), overwrite=False, emit=lambda _: None)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize(("model_type", "task"), MODELS)
def test_bfloat16_is_exported_as_float32_and_held_against_both(
    tmp_path: Path, model_type: str, task: str, file: str
) -> None:
    source = stored(tmp_path / "model", model_type, task, torch.bfloat16, file)
    manifest = run(source, tmp_path / "out", task)
    assert manifest.dtype == "float32"
    assert {result.arithmetic for result in manifest.parity} == {"float32", "bfloat16"}
    assert all(result.reason for result in manifest.parity)
    for graph in manifest.graphs:
        rounded = [item for item in manifest.parity if (item.graph, item.arithmetic) == (graph.file, "bfloat16")]
        assert rounded
        assert max(item.max_abs for item in rounded) > 1e-4, "bfloat16 has 8 bits"
        exact = [item for item in manifest.parity if (item.graph, item.arithmetic) == (graph.file, "float32")]
        assert max(item.max_abs for item in exact) < 1e-4


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("model_type", "task"), MODELS)
def test_float16_is_kept_on_request_and_held_against_float32_too(
    tmp_path: Path, model_type: str, task: str, file: str
) -> None:
    source = stored(tmp_path / "model", model_type, task, torch.float16, file)
    manifest = run(source, tmp_path / "out", task, dtype="source")
    assert manifest.dtype == "float16"
    assert {result.arithmetic for result in manifest.parity if result.output != "tokens"} == {"float16", "float32"}
    for path in (tmp_path / "out").glob("*.onnx"):
        sizes = Counter()
        for tensor in onnx.load(path).graph.initializer:
            sizes[tensor.data_type] += len(tensor.raw_data)
        assert sizes[onnx.TensorProto.FLOAT16] > sizes[onnx.TensorProto.FLOAT], "T5 wants some in float32"


def test_bfloat16_cannot_be_kept(tmp_path: Path) -> None:
    source = stored(tmp_path / "model", "bert", "text-classification", torch.bfloat16, "model.safetensors")
    with pytest.raises(OptionsInvalidError, match="float32 holds every bfloat16 number"):
        run(source, tmp_path / "out", "text-classification", dtype="source")
    assert not (tmp_path / "out").exists()


def test_float32_has_no_other_arithmetic() -> None:
    assert other_dtype("float32", "float32") is None
    assert other_dtype("float32", "bfloat16") == "bfloat16"
    assert other_dtype("float16", "float16") == "float32"
    assert other_dtype("float32", "float64") is None


def test_what_pytorch_cannot_compute_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, np.ndarray]:
        raise RuntimeError("\"fancy_kernel\" not implemented for 'BFloat16'\nand so on")

    monkeypatch.setattr("modelexport.parity.arithmetic.reference", refuse)
    source = stored(tmp_path / "model", "bert", "text-classification", torch.bfloat16, "model.safetensors")
    manifest = run(source, tmp_path / "out", "text-classification")
    assert {result.arithmetic for result in manifest.parity} == {"float32"}
    assert any("bfloat16" in note and "fancy_kernel" in note for note in manifest.notes)


def test_a_graph_that_only_one_arithmetic_agrees_with_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate in float32 stands, whatever the other reference says."""
    reference = convert.references.reference

    def shifted(*arguments: object) -> dict[str, np.ndarray]:
        return {name: value + 0.01 for name, value in reference(*arguments).items()}

    monkeypatch.setattr(convert.references, "reference", shifted)
    monkeypatch.setattr(OtherArithmetic, "outputs", lambda *_: {})
    source = stored(tmp_path / "model", "bert", "text-classification", torch.bfloat16, "model.safetensors")
    with pytest.raises(ParityFailedError):
        run(source, tmp_path / "out", "text-classification")


@pytest.mark.parametrize(("model_type", "task"), MODELS[:2])
def test_the_streamed_file_computes_what_the_unstreamed_one_does(tmp_path: Path, model_type: str, task: str) -> None:
    """Optimum lets torch serialise the weights with the graph; ours never pass through a protobuf message."""
    source = build(find(model_type), task, tmp_path / "model")
    run(source, tmp_path / "ours", task)
    main_export(str(source), output=tmp_path / "optimum", task=task, local_files_only=True, do_validation=False)
    ours, theirs = (onnxruntime.InferenceSession(tmp_path / name / "model.onnx") for name in ("ours", "optimum"))
    generator = np.random.default_rng(0)
    sizes = {
        "batch_size": 2,
        "sequence_length": 5,
        "past_sequence_length": 3,
        "past_sequence_length + sequence_length": 8,
    }
    feeds = {}
    for item in ours.get_inputs():
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in item.shape]
        if item.type == "tensor(int64)":
            limits = {"attention_mask": (1, 2), "token_type_ids": (0, 2)}.get(item.name, (0, 30))
            feeds[item.name] = generator.integers(*limits, shape)
        else:
            feeds[item.name] = generator.standard_normal(shape).astype(np.float32)
    names = [item.name for item in ours.get_outputs()]
    assert {item.name for item in theirs.get_outputs()} == set(names)
    for name, got, want in zip(names, ours.run(names, feeds), theirs.run(names, feeds), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6, rtol=0, err_msg=name)
