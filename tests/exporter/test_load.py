"""A model is loaded with the checkpoint's weights and no others."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modelexport import bridge, checkpoint
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
    ConfigInvalidError,
    OutOfMemoryError,
    TaskUnknownError,
    UnsupportedArchitectureError,
)
from modelexport.load import Loaded, load_model
from tests.exporter.folders import bert_shapes, write_model, write_safetensors

pytestmark = pytest.mark.engine


def load(folder: Path, task: str = "feature-extraction", dtype: torch.dtype = torch.float32) -> Loaded:
    read = checkpoint.read(folder)
    return load_model(bridge.prepare(read, folder.parent / "scratch"), read, task, dtype)


def save(folder: Path, model: transformers.PreTrainedModel, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def small(**options: Any) -> dict[str, Any]:
    return {
        "vocab_size": 16,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 8,
    } | options


def test_every_weight_is_the_checkpoints_own(tmp_path: Path) -> None:
    loaded = load(write_model(tmp_path / "m"))
    read = checkpoint.read(tmp_path / "m")
    state = loaded.model.state_dict()
    for name, info in read.tensors.items():
        data = (read.root / info.file).read_bytes()[info.offset : info.offset + info.nbytes]
        assert state[name].numpy().tobytes() == data
    assert (loaded.notes, loaded.uninitialised) == ((), ())
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_weights_of_the_asked_dtype_stay_memory_mapped(tmp_path: Path) -> None:
    code = f"""
import sys, torch
from pathlib import Path
from modelexport import bridge, checkpoint, load
def anonymous():
    fields = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(fields["RssAnon"].split()[0])
read = checkpoint.read(Path({str(tmp_path / "m")!r}))
prepared = bridge.prepare(read, Path({str(tmp_path / "s")!r}))
load.load_config(prepared)
before = anonymous()
model = load.load_model(prepared, read, "feature-extraction", torch.float32).model
total = sum(float(parameter.sum()) for parameter in model.parameters())
print(anonymous() - before)
"""
    config = transformers.BertConfig(**small(vocab_size=40000, hidden_size=256))
    save(tmp_path / "m", transformers.BertModel(config))
    root = Path(checkpoint.__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    kilobytes = 40000 * 256 * 4 // 1024
    assert int(finished.stdout.split()[-1]) < kilobytes // 2


def test_a_pickle_is_loaded_through_the_restricted_unpickler(tmp_path: Path) -> None:
    model = transformers.BertModel(transformers.BertConfig(**small()))
    folder = save(tmp_path / "m", model, safe_serialization=False)
    assert (folder / "pytorch_model.bin").is_file()
    assert torch.equal(load(folder).model.pooler.dense.weight, model.pooler.dense.weight)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/should-never-exist"),))


@pytest.mark.parametrize("content", [{"a": Evil()}, Evil()])
def test_a_pickle_that_needs_more_than_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    for protocol in (2, 4):
        with (folder / "pytorch_model.bin").open("wb") as stream:
            pickle.dump(content, stream, protocol=protocol)
        with pytest.raises(CheckpointUnreadableError):
            load(folder)
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointUnreadableError, match="could run code"):
        load(folder)
    assert not Path("/tmp/should-never-exist").exists()


@pytest.mark.parametrize("content", [b"PK\x03\x04 broken", b"\x80\x02broken", b"x", bytes(100)])
def test_a_damaged_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointUnreadableError, match=r"pytorch_model\.bin"):
        load(folder)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(2)])
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointUnreadableError, match="not a map"):
        load(folder)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    shapes = bert_shapes()
    del shapes["encoder.layer.0.output.dense.bias"]
    write_safetensors(write_model(tmp_path / "m") / "model.safetensors", shapes)
    with pytest.raises(CheckpointIncompleteError, match=r"encoder\.layer\.0\.output\.dense\.bias.*complete weights"):
        load(tmp_path / "m")


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "question-answering", "token-classification"])
def test_a_head_that_the_checkpoint_lacks_is_refused(tmp_path: Path, task: str) -> None:
    with pytest.raises(CheckpointIncompleteError, match=f"no trained head for the task '{task}'"):
        load(write_model(tmp_path / "m"), task)


def test_a_missing_pooler_is_left_to_the_exporter(tmp_path: Path) -> None:
    loaded = load(write_model(tmp_path / "m", pooler=False))
    assert loaded.uninitialised == ("pooler.dense.bias", "pooler.dense.weight")


def test_a_head_that_the_task_does_not_use_is_noted(tmp_path: Path) -> None:
    model = transformers.BertForMaskedLM(transformers.BertConfig(**small()))
    loaded = load(save(tmp_path / "m", model))
    assert loaded.notes == ("Weights that the task does not use were left out: cls.",)
    assert set(loaded.uninitialised) == {"pooler.dense.bias", "pooler.dense.weight"}


def test_a_layer_more_than_the_config_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match=r"no place for encoder\.layer\.1\."):
        load(write_model(tmp_path / "m", layers=2))


def test_a_layer_less_than_the_config_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointIncompleteError, match=r"encoder\.layer\.1\."):
        load(write_model(tmp_path / "m", {"num_hidden_layers": 2}))


def test_another_shape_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match=r"word_embeddings.*\[16, 8\] against \[17, 8\]"):
        load(write_model(tmp_path / "m", {"vocab_size": 17}))


def test_a_config_that_asks_for_terabytes_is_refused_before_they_are_taken(tmp_path: Path) -> None:
    with pytest.raises((CheckpointMismatchError, CheckpointIncompleteError)):
        load(write_model(tmp_path / "m", {"vocab_size": 10**12, "max_position_embeddings": 10**12}))


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    folder = save(tmp_path / "m", transformers.GPT2LMHeadModel(config))
    assert "lm_head.weight" not in checkpoint.read(folder).tensors
    model = load(folder, "text-generation").model
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_untied_head_that_is_missing_is_refused_although_its_class_would_be_silent(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    folder = save(tmp_path / "m", transformers.GPT2LMHeadModel(config))
    values = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointIncompleteError, match=r"lm_head\.weight"):
        load(folder, "text-generation")


def test_positions_that_the_class_computes_are_not_missing(tmp_path: Path) -> None:
    sizes = {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.MarianConfig(
        vocab_size=16, d_model=8, encoder_layers=1, decoder_layers=1, max_position_embeddings=8, pad_token_id=1, **sizes
    )
    folder = save(tmp_path / "m", transformers.MarianMTModel(config))
    assert not any("embed_positions" in name for name in checkpoint.read(folder).tensors)
    assert load(folder, "text2text-generation").uninitialised == ()


def test_the_lists_of_the_class_are_put_back(tmp_path: Path) -> None:
    before = dict(vars(transformers.BertModel)), dict(vars(transformers.GPT2LMHeadModel))
    load(write_model(tmp_path / "m"))
    assert (dict(vars(transformers.BertModel)), dict(vars(transformers.GPT2LMHeadModel))) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_is_the_one_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    model = load(write_model(tmp_path / "m"), dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("task", ["no-such-task", "image-classification"])
def test_a_task_without_a_class_is_refused(tmp_path: Path, task: str) -> None:
    with pytest.raises(TaskUnknownError):
        load(write_model(tmp_path / "m"), task)


def test_a_model_type_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no model type 'unheard_of'"):
        load(write_model(tmp_path / "m", {"model_type": "unheard_of"}))


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": "8"},
        {"num_attention_heads": 3},
        {"hidden_act": "nothing"},
        {"num_attention_heads": 0},
        {"id2label": 3},
    ],
)
def test_a_config_with_which_no_model_can_be_built_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalidError):
        load(write_model(tmp_path / "m", config))


def test_a_lack_of_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte.")

    folder = write_model(tmp_path / "m")
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", fail)
    with pytest.raises(OutOfMemoryError):
        load(folder)
