"""A module cut out of a graph runs by itself and computes what the PyTorch module does."""

from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from modelexport import weights
from modelexport.contract.errors import NoTagsError, OutputExistsError, UsageError
from modelexport.extract import Extracted, extract
from modelexport.htp.tags import Tag, all_nodes
from modelexport.module_parity.reference import RecordedCall, record
from tests.exporter.htp_models import exported


def recorded_calls(name: str, module: str, folder: Path, plan: str = "model") -> list[RecordedCall]:
    """What PyTorch's module was given and returned, call by call."""
    subject = exported(name)
    (calls := folder / "calls").mkdir()
    recording = record(subject.plans[plan], subject.cases[plan][-1], subject.hierarchy, calls)
    return [call for call in recording.calls if call.frame.path == module]


def fits(array: np.ndarray, shape: list[int | str]) -> bool:
    """Whether an input of this declared shape takes the array."""
    return array.ndim == len(shape) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(shape, array.shape, strict=True)
    )


def agrees(extracted: Extracted, call: RecordedCall) -> bool:
    """Whether it returns what PyTorch did; its inputs are arguments of the call, in the order of the graph."""
    session = onnxruntime.InferenceSession(extracted.path, providers=["CPUExecutionProvider"])
    given = [tensor.load() for tensor in call.given]
    want = [tensor.load() for tensor in call.returned]
    shapes = [item.shape for item in session.get_inputs()]
    for chosen in permutations(given, len(extracted.inputs)):
        if not all(fits(array, shape) for array, shape in zip(chosen, shapes, strict=True)):
            continue
        got = session.run(None, dict(zip(extracted.inputs, chosen, strict=True)))
        if len(got) == len(want) and all(np.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True)):
            return True
    return False


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("bert", "encoder.layer.1"),
        ("bert", "encoder.layer.0.attention.self"),
        ("bert", "encoder.layer.0.intermediate"),
        ("bert", "encoder.layer.1.output.LayerNorm"),
        ("deberta-v2", "encoder.layer.0.output"),
        ("resnet", "resnet.encoder.stages.1"),
        ("resnet", "resnet.embedder"),
        ("vit", "vit.encoder"),
        ("wav2vec2", "wav2vec2.feature_extractor"),
    ],
)
def test_it_computes_what_the_pytorch_module_returns(name: str, module: str, tmp_path: Path) -> None:
    (call,) = recorded_calls(name, module, tmp_path)
    extracted = extract(exported(name).file, module, tmp_path / "cut.onnx")
    assert agrees(extracted, call)


def test_each_call_of_a_repeated_module_can_be_cut_out(tmp_path: Path) -> None:
    module = "encoder.albert_layer_groups.0"
    calls = recorded_calls("albert", module, tmp_path)
    assert len(calls) == 2
    for number, call in enumerate(calls):
        extracted = extract(exported("albert").file, module, tmp_path / f"{number}.onnx", call=number)
        assert agrees(extracted, call)


@pytest.mark.parametrize(("branch", "plan"), [(0, "decoder_with_past_model"), (1, "decoder_model")])
def test_it_cuts_through_the_branches_of_a_merged_decoder(branch: int, plan: str, tmp_path: Path) -> None:
    module = "model.decoder.layers.0.fc1"
    (call,) = recorded_calls("bart", module, tmp_path, plan)
    file = exported("bart").files["decoder_model_merged"]
    extracted = extract(file, module, tmp_path / "cut.onnx", call=branch)
    assert extracted.calls == 2
    assert agrees(extracted, call)


def test_the_whole_model_is_a_module_too(tmp_path: Path) -> None:
    subject = exported("bert")
    extracted = extract(subject.file, "", tmp_path / "cut.onnx")
    (case, *_) = subject.cases["model"]
    (whole,) = onnxruntime.InferenceSession(subject.file).run(None, case.feeds)
    (cut,) = onnxruntime.InferenceSession(extracted.path).run(None, case.feeds)
    assert np.allclose(cut, whole, atol=1e-5)


def test_inputs_and_outputs_are_declared_and_tags_are_kept(tmp_path: Path) -> None:
    extract(exported("bert").file, "encoder.layer.0.intermediate.dense", tmp_path / "cut.onnx")
    model = ir.load(tmp_path / "cut.onnx")
    onnx.checker.check_model(tmp_path / "cut.onnx", full_check=True)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.dtype is ir.DataType.FLOAT
        assert value.shape is not None
    assert list(model.graph.inputs[0].shape or ())[-1] == 32
    assert list(model.graph.outputs[0].shape or ())[-1] == 37
    assert all(Tag.read(node) for node in all_nodes(model))
    dense = exported("bert").model.encoder.layer[0].intermediate.dense
    stored = model.graph.initializers["encoder.layer.0.intermediate.dense.bias"].const_value
    assert stored is not None
    assert torch.equal(torch.from_numpy(stored.numpy()), dense.bias)


def test_weights_in_a_sidecar_come_along(tmp_path: Path) -> None:
    model = exported("bert").load()
    weights.write(model, tmp_path / "large.onnx", limit=1000)
    assert (tmp_path / "large.onnx_data").is_file()
    (call,) = recorded_calls("bert", "encoder.layer.1", tmp_path)
    extracted = extract(tmp_path / "large.onnx", "encoder.layer.1", tmp_path / "cut.onnx")
    assert agrees(extracted, call)


def test_it_says_what_is_near_when_there_is_no_such_module(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"encoder\.layer has: 0, 1"):
        extract(exported("bert").file, "encoder.layer.7", tmp_path / "cut.onnx")
    with pytest.raises(UsageError, match="never called"):
        extract(exported("bert").file, "encoder.layer", tmp_path / "cut.onnx")
    assert not (tmp_path / "cut.onnx").exists()


def test_it_asks_which_call_is_meant(tmp_path: Path) -> None:
    module = "encoder.albert_layer_groups.0"
    with pytest.raises(UsageError, match=r"called 2 times.*--call 0\.\.1"):
        extract(exported("albert").file, module, tmp_path / "cut.onnx")
    with pytest.raises(UsageError, match="at most 1"):
        extract(exported("albert").file, module, tmp_path / "cut.onnx", call=2)


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_text("mine")
    with pytest.raises(OutputExistsError):
        extract(exported("bert").file, "encoder", tmp_path / "cut.onnx")
    assert (tmp_path / "cut.onnx").read_text() == "mine"


def test_a_file_without_tags_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(exported("bert").file)
    for node in proto.graph.node:
        del node.metadata_props[:]
    onnx.save(proto, tmp_path / "plain.onnx")
    with pytest.raises(NoTagsError):
        extract(tmp_path / "plain.onnx", "encoder", tmp_path / "cut.onnx")
