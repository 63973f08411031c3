"""The ONNX graphs of checkpoints saved by transformers 5 compute what transformers 5 computes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelexport.contract.errors import ExportFailedError, ParityFailedError
from modelexport.contract.events import Event, Note
from modelexport.contract.manifest import Options
from modelexport.export import Origin, export
from tests.fixtures_v5 import checkpoints
from tests.fixtures_v5.inputs import inputs_for, meaningful
from tests.fixtures_v5.models import MODELS, Model

pytestmark = pytest.mark.engine
TOLERANCE = 1e-4
BY_NAME = {model.name: model for model in MODELS}
BEYOND_THE_LIMIT = {"llama_dynamic", "mistral_longrope", "phi3_longrope"}  # see bridge.rope.length_limit
NOT_IN_OPTIMUM = {"data2vec_vision_renamed", "mixtral_fused", "olmoe_fused", "qwen2_moe_fused"}
"""It has no ONNX config for them, or none for this task."""
QUICK = {"llama_theta", "gemma3_layers", "modernbert_layers", "t5_unscaled", "clip_vision_renamed"}
EXPORTABLE = [model for model in MODELS if model.name not in BEYOND_THE_LIMIT | NOT_IN_OPTIMUM and model.task]


def exported(model: Model, folder: Path) -> tuple[Path, list[Event]]:
    events: list[Event] = []
    source = checkpoints.build(model.name, folder / "checkpoint")
    export(source, folder / "out", Options(task=model.task), origin=Origin(), overwrite=False, emit=events.append)
    return folder / "out", events


def run(file: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The first output; positions, segments and the mask of sounds are filled in where the graph asks for them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # no threads in a process that forks exports
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feeds = dict(inputs)
    for wanted in session.get_inputs():
        if wanted.name == "position_ids":
            ids = inputs["input_ids"]
            feeds[wanted.name] = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape)
        elif wanted.name == "token_type_ids":
            feeds[wanted.name] = np.zeros_like(inputs["input_ids"])
        elif wanted.name == "attention_mask" and "input_values" in inputs:
            feeds[wanted.name] = np.ones(inputs["input_values"].shape, dtype=np.int64)
    names = {wanted.name for wanted in session.get_inputs()}
    output: np.ndarray = session.run(None, {name: value for name, value in feeds.items() if name in names})[0]
    return output


def run_all(out: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """One graph, or encoder and decoder."""
    if (out / "model.onnx").is_file():
        return run(out / "model.onnx", inputs)
    hidden = run(out / "encoder_model.onnx", inputs)
    decoder: dict[str, np.ndarray] = {"input_ids": inputs["decoder_input_ids"], "encoder_hidden_states": hidden}
    everywhere = np.ones(hidden.shape[:2], dtype=np.int64)
    decoder["encoder_attention_mask"] = inputs.get("attention_mask", everywhere)
    return run(out / "decoder_model.onnx", decoder)


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, id=m.name, marks=() if m.name in QUICK else pytest.mark.breadth) for m in EXPORTABLE],
)
def test_the_graph_of_a_checkpoint_of_transformers_5_computes_the_same(model: Model, tmp_path: Path) -> None:
    out, _ = exported(model, tmp_path)
    config = checkpoints.config(model.name)
    inputs: dict[str, Any] = inputs_for(config)
    if config["model_type"] == "xlm":  # the model finds the padding itself, the graph is told
        inputs["attention_mask"] = (inputs["input_ids"] != config["pad_token_id"]).astype(np.int64)
    difference = np.abs(
        meaningful(run_all(out, inputs), inputs) - meaningful(checkpoints.reference(model.name), inputs)
    ).max()
    assert difference < TOLERANCE


def test_a_length_beyond_which_the_graph_is_wrong_is_noted(tmp_path: Path) -> None:
    _, events = exported(BY_NAME["llama_dynamic"], tmp_path)
    assert any(isinstance(event, Note) and "up to 16 tokens" in event.message for event in events)


@pytest.mark.parametrize("name", sorted(BEYOND_THE_LIMIT - {"llama_dynamic"}))
def test_what_cannot_be_traced_faithfully_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises((ParityFailedError, ExportFailedError)):
        exported(BY_NAME[name], tmp_path)
