"""Weights are streamed: embedded or external, byte for byte what the model holds, hashed on the way."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor

from modelexport import weights


def linear(dtype: torch.dtype, transposed: bool = True) -> tuple[ir.Model, torch.Tensor]:
    """y = x @ W with W a transposed view of a [40, 30] tensor, and a small constant beside it."""
    torch.manual_seed(0)
    stored = torch.randn(40, 30).to(dtype)
    view = stored.T if transposed else stored
    kind = TorchTensor(view).dtype
    x = ir.Value(name="x", type=ir.TensorType(kind), shape=ir.Shape([None, view.shape[0]]))
    w = ir.Value(name="w", const_value=TorchTensor(view, name="w"))
    b = ir.Value(name="b", const_value=TorchTensor(torch.ones(view.shape[1]).to(dtype), name="b"))
    matmul = ir.node("MatMul", [x, w])
    add = ir.node("Add", [matmul.outputs[0], b])
    add.outputs[0].name = "y"
    add.outputs[0].type, add.outputs[0].shape = ir.TensorType(kind), ir.Shape([None, view.shape[1]])
    graph = ir.Graph([x], [add.outputs[0]], nodes=[matmul, add], initializers=[w, b], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10), view


@pytest.mark.parametrize("limit", [weights.PROTOBUF_LIMIT, 1000], ids=["embedded", "external"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_onnx_runtime_reads_what_was_streamed(tmp_path: Path, dtype: torch.dtype, limit: int) -> None:
    model, view = linear(dtype)
    path = tmp_path / "model.onnx"
    files = weights.write(model, path, limit=limit)
    assert [file.path.name for file in files] == ["model.onnx", "model.onnx_data"][: len(files)]
    assert len(files) == (1 if limit > 1000 else 2)
    for file in files:
        content = file.path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    onnx.checker.check_model(path, full_check=True)
    x = np.random.default_rng(0).normal(size=(3, 30)).astype(view.numpy().dtype)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ view.numpy() + 1, rtol=1e-2 if dtype is torch.float16 else 1e-5, atol=1e-2)


def test_streaming_equals_what_the_onnx_library_writes(tmp_path: Path) -> None:
    model, _ = linear(torch.float32)
    weights.write(model, tmp_path / "streamed.onnx")
    ir.save(model, tmp_path / "library.onnx")
    streamed, library = onnx.load(tmp_path / "streamed.onnx"), onnx.load(tmp_path / "library.onnx")
    by_name = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in library.graph.initializer}
    assert {tensor.name for tensor in streamed.graph.initializer} == set(by_name)
    for tensor in streamed.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), by_name[tensor.name])
    del streamed.graph.initializer[:], library.graph.initializer[:]
    assert streamed.graph == library.graph


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    model, view = linear(torch.bfloat16, transposed=False)
    weights.write(model, tmp_path / "model.onnx")
    (tensor,) = (t for t in onnx.load(tmp_path / "model.onnx").graph.initializer if t.name == "w")
    assert tensor.data_type == onnx.TensorProto.BFLOAT16
    assert tensor.raw_data == view.view(torch.int16).numpy().tobytes()


def test_progress_adds_up_to_the_bytes_of_the_weights(tmp_path: Path) -> None:
    model, _ = linear(torch.float32)
    counts: list[int] = []
    weights.write(model, tmp_path / "model.onnx", counts.append)
    assert sum(counts) == 40 * 30 * 4


def test_a_model_just_under_the_limit_is_embedded_and_just_over_it_is_not(tmp_path: Path) -> None:
    model, _ = linear(torch.float32)
    size = weights.write(model, tmp_path / "model.onnx")[0].size
    assert len(weights.write(model, tmp_path / "under.onnx", limit=size + 1000)) == 1
    assert len(weights.write(model, tmp_path / "over.onnx", limit=size - 1)) == 2
