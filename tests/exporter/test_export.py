"""The export as a whole: what lands in the folder, that it is right, and that it is complete or absent."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForImageClassification, ORTModelForMaskedLM
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointUnreadableError,
    ConfigMissingError,
    CustomCodeError,
    DiskFullError,
    FolderInvalidError,
    ModelExportError,
    OutputExistsError,
    ParityFailedError,
    TaskUnknownError,
    UnsupportedArchitectureError,
)
from modelexport.contract.events import Stage, StageName
from modelexport.contract.manifest import Manifest, Options
from modelexport.export import Origin, export
from tests.exporter import tiny


def run(source: Path, out: Path, overwrite: bool = False, **options: object) -> Manifest:
    return export(
        source, out, Options.model_validate(options), origin=Origin(), overwrite=overwrite, emit=lambda _: None
    )


@pytest.mark.parametrize(
    ("model_type", "auto_class", "task"),
    [
        ("bert", "AutoModel", "feature-extraction"),
        ("bert", "AutoModelForMaskedLM", "fill-mask"),
        ("bert", "AutoModelForQuestionAnswering", "question-answering"),
        ("distilbert", "AutoModelForSequenceClassification", "text-classification"),
        ("roberta", "AutoModelForTokenClassification", "token-classification"),
        ("mpnet", "AutoModel", "feature-extraction"),
    ],
)
def test_a_text_encoder_is_exported_for_the_task_that_its_architecture_says(
    tmp_path: Path, model_type: str, auto_class: str, task: str
) -> None:
    tiny.save_text(tmp_path / "model", model_type, auto_class)
    manifest = run(tmp_path / "model", tmp_path / "out")
    assert manifest.task == task
    (graph,) = manifest.graphs
    assert graph.traced == graph.nodes, "every node of these models comes from a traced operation"
    assert len({result.case for result in manifest.parity}) >= 3
    assert all(result.passed and result.max_abs <= 1e-4 for result in manifest.parity)
    onnx.checker.check_model(tmp_path / "out" / "model.onnx", full_check=True)


def test_a_vision_encoder_is_exported_with_its_processor(tmp_path: Path) -> None:
    model = tiny.save_vit(tmp_path / "model")
    manifest = run(tmp_path / "model", tmp_path / "out")
    assert manifest.task == "image-classification"
    assert manifest.optimum.model_class == "ORTModelForImageClassification"
    image = np.random.default_rng(3).integers(0, 255, (41, 57, 3)).astype(np.uint8)
    batch = AutoImageProcessor.from_pretrained(tmp_path / "out", use_fast=False)([image] * 5, return_tensors="pt")
    onnx_model = ORTModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(onnx_model(**batch).logits, model(**batch).logits, atol=1e-4, rtol=0)


def test_the_folder_holds_what_optimum_needs_and_lists_every_file(bert: Path, exported_bert: Path) -> None:
    names = {path.name for path in exported_bert.iterdir()}
    assert names == {
        "config.json", "model.onnx", "modelexport.json", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    manifest = Manifest.from_json((exported_bert / "modelexport.json").read_text())
    assert {entry.path for entry in manifest.files} == names - {"modelexport.json"}
    for entry in manifest.files:
        content = (exported_bert / entry.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
    for name in names - {"model.onnx", "modelexport.json"}:
        assert (exported_bert / name).read_bytes() == (bert / name).read_bytes(), "byte copies"
    (weights,) = manifest.source.weights
    assert weights.sha256 == hashlib.sha256((bert / "model.safetensors").read_bytes()).hexdigest()


def test_stock_optimum_computes_what_pytorch_does_on_text_of_any_length(bert: Path, exported_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported_bert)
    ours = ORTModelForFeatureExtraction.from_pretrained(exported_bert)
    theirs = AutoModel.from_pretrained(bert).eval()
    for texts in (["a"], ["Hello world!", "The quick brown fox " * 9], [""] * 4):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(
                ours(**batch).last_hidden_state, theirs(**batch).last_hidden_state, atol=1e-4, rtol=0
            )


def test_two_exports_of_one_input_are_byte_identical(bert: Path, exported_bert: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(bert, tmp_path / "elsewhere" / "under-another-name")
    run(copied, tmp_path / "out")
    for path in exported_bert.iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_the_graph_is_as_clean_as_a_folded_one(exported_bert: Path) -> None:
    graph = onnx.load(exported_bert / "model.onnx").graph
    weights = {tensor.name for tensor in graph.initializer}
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Identity", "Constant"}
    assert not [n.name for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]
    assert {value.name for value in graph.input} == {"input_ids", "attention_mask", "token_type_ids"}
    assert [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == [
        "batch_size", "sequence_length", 32,
    ]  # fmt: skip
    assert "embeddings.word_embeddings.weight" in weights
    assert "encoder.layer.0.attention.self.query.weight.transposed" in weights


def test_stages_are_reported_in_order(bert: Path, tmp_path: Path) -> None:
    stages: list[StageName] = []
    export(
        bert, tmp_path / "out", Options(), origin=Origin(), overwrite=False,
        emit=lambda event: stages.append(event.stage) if isinstance(event, Stage) else None,
    )  # fmt: skip
    assert stages == list(StageName)


def test_the_manifest_records_repo_commit_and_options(bert: Path, tmp_path: Path) -> None:
    origin = Origin(repo="acme/bert", sha="0" * 40)
    options = Options(atol=1e-3, opset=17)
    manifest = export(bert, tmp_path / "out", options, origin=origin, overwrite=False, emit=lambda _: None)
    assert (manifest.source.repo, manifest.source.sha) == ("acme/bert", "0" * 40)
    assert manifest.options == options and manifest.options_digest == options.digest() != Options().digest()
    assert manifest.opset == 17
    assert onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).opset_import[0].version == 17
    assert {result.tolerance for result in manifest.parity} == {1e-3}


def test_a_pipeline_tag_decides_where_the_architecture_does_not(tmp_path: Path) -> None:
    tiny.save_text(tmp_path / "model", auto_class="AutoModelForMaskedLM")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "README.md").write_text("---\npipeline_tag: fill-mask\n---\n# A model\n")
    assert run(tmp_path / "model", tmp_path / "out").task == "fill-mask"
    assert isinstance(ORTModelForMaskedLM.from_pretrained(tmp_path / "out"), ORTModelForMaskedLM)


def test_a_tokenizer_with_more_ids_than_the_model_has_does_not_break_the_check(tmp_path: Path) -> None:
    tiny.save_text(tmp_path / "model", vocab_size=40)
    assert run(tmp_path / "model", tmp_path / "out").task == "feature-extraction"


# --- what stops an export; each leaves nothing behind ----------------------------------------------------------------


def refused(source: Path, out: Path, error: type[ModelExportError], **options: object) -> str:
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(error) as raised:
        run(source, out, **options)
    assert sorted(path.name for path in out.parent.iterdir()) == before, "something was left behind"
    assert len(raised.value.message) > 40, "a message says what, why, and what to do"
    return raised.value.message


@pytest.fixture
def broken(bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT to break."""
    return shutil.copytree(bert, tmp_path / "broken")


def test_an_existing_folder_is_not_overwritten(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    assert "--overwrite" in refused(bert, tmp_path / "out", OutputExistsError)
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    run(bert, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "precious.txt").exists() and (tmp_path / "out" / "model.onnx").exists()


def test_a_failed_overwrite_keeps_the_old_folder(broken: Path, exported_bert: Path, tmp_path: Path) -> None:
    old = shutil.copytree(exported_bert, tmp_path / "out")
    (broken / "config.json").unlink()
    with pytest.raises(ConfigMissingError):
        run(broken, old, overwrite=True)
    assert (old / "model.onnx").read_bytes() == (exported_bert / "model.onnx").read_bytes()


def test_an_unknown_task_is_named_with_the_closest_one(bert: Path, tmp_path: Path) -> None:
    assert "'fill-mask'" in refused(bert, tmp_path / "out", TaskUnknownError, task="fil-mask")


def test_a_task_that_the_architecture_cannot_do_lists_those_it_can(bert: Path, tmp_path: Path) -> None:
    message = refused(bert, tmp_path / "out", UnsupportedArchitectureError, task="image-classification")
    assert "fill-mask" in message


def test_a_task_whose_head_the_checkpoint_lacks_is_refused(bert: Path, tmp_path: Path) -> None:
    message = refused(bert, tmp_path / "out", CheckpointIncompleteError, task="text-classification")
    assert "classifier" in message


def test_a_missing_config_is_named(broken: Path, tmp_path: Path) -> None:
    (broken / "config.json").unlink()
    assert "config.json" in refused(broken, tmp_path / "out", ConfigMissingError)


@pytest.mark.parametrize("keep", [0, 5, 4000])
def test_a_truncated_safetensors_file_is_refused(broken: Path, tmp_path: Path, keep: int) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(broken, tmp_path / "out", CheckpointUnreadableError)


def test_a_safetensors_file_with_a_bad_header_is_refused(broken: Path, tmp_path: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:8] + b"not json" + path.read_bytes()[16:])
    refused(broken, tmp_path / "out", CheckpointUnreadableError)


def test_a_missing_weight_is_named(broken: Path, tmp_path: Path) -> None:
    tensors = load_file(broken / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    assert "encoder.layer.1.output.dense.weight" in refused(broken, tmp_path / "out", CheckpointIncompleteError)


def test_custom_code_is_not_run(broken: Path, tmp_path: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    config |= {"model_type": "acme", "auto_map": {"AutoModel": "modeling.Acme", "AutoConfig": "modeling.Config"}}
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(broken, tmp_path / "out", CustomCodeError)
    assert not (tmp_path / "ran").exists()


def test_wrong_numbers_stop_the_export_and_say_where(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that computes something else: the weights of one layer are exchanged on their way to the file."""
    import modelexport.tracing as tracing

    build = tracing.graph.build

    def sabotage(*args: object, **kwargs: object) -> object:
        model = build(*args, **kwargs)
        query = model.graph.initializers["encoder.layer.1.attention.self.query.weight.transposed"]
        query.const_value = model.graph.initializers["encoder.layer.0.attention.self.key.weight.transposed"].const_value
        return model

    monkeypatch.setattr(tracing.graph, "build", sabotage)
    message = refused(bert, tmp_path / "out", ParityFailedError)
    assert "'last_hidden_state'" in message and "input_ids [" in message and "0.0001" in message


def test_a_tolerance_that_float32_cannot_meet_fails(bert: Path, tmp_path: Path) -> None:
    assert "--atol" in refused(bert, tmp_path / "out", ParityFailedError, atol=1e-12)


def test_a_full_disk_is_said_and_leaves_nothing(bert: Path, tmp_path: Path) -> None:
    """The kernel's file size limit stands in for a full disk: writes end with an error in the same place."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DiskFullError, match="disk is full"):
            run(bert, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_was_changed_on_the_way_is_noticed(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modelexport.export as story

    bundle = story.bundle

    def sabotage(*args: object) -> object:
        result = bundle(*args)
        path = args[2] / "tokenizer.json"
        path.write_text(
            path.read_text()
            .replace('"lowercase":true', '"lowercase":false')
            .replace('"lowercase": true', '"lowercase": false')
        )
        return result

    monkeypatch.setattr(story, "bundle", sabotage)
    assert "bundle gives another result" in refused(bert, tmp_path / "out", FolderInvalidError)
