"""A dozen animals of the zoo through the whole export; ``make breadth`` takes all of them, beside optimum-cli."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optimum.onnxruntime
import pytest
import torch
from optimum.exporters.onnx import main_export
from transformers import AutoModelForImageToImage, GPT2LMHeadModel

from modelexport import checkpoint, engine, preprocessors
from modelexport import task as tasks
from modelexport.check_folder import check_folder
from modelexport.contract.errors import (
    ExportFailedError,
    ParityFailedError,
    UnsupportedArchitectureError,
    UnsupportedLibraryError,
)
from modelexport.contract.manifest import Manifest, Options
from modelexport.export import Origin, export
from modelexport.module_parity.check import check_modules
from modelexport.parity import generation
from modelexport.parity.cases import make_cases
from modelexport.parity.generation import Prompt
from modelexport.parity.numbers import Tolerance
from modelexport.plan import plan as plans
from tests.zoo.animal import Animal
from tests.zoo.build import build
from tests.zoo.models import find
from tests.zoo.outcome import COMPARED, TRACED, Outcome, Row, shortcomings

PAST = "text-generation-with-past"
SEQ2SEQ = "text2text-generation-with-past"
MERGED = ("decoder_model_merged.onnx", "encoder_model.onnx")


def run(folder: Path, out: Path, task: str | None) -> Manifest:
    return export(folder, out, Options(task=task), origin=Origin(), overwrite=False, emit=lambda _: None)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """Model folder, exported folder and manifest of a tiny GPT-2 with its cache. Read only."""
    folder = tmp_path_factory.mktemp("gpt2")
    model = build(find("gpt2"), PAST, folder / "model")
    return model, folder / "out", run(model, folder / "out", PAST)


@pytest.fixture(scope="session")
def bart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """The same for a tiny BART."""
    folder = tmp_path_factory.mktemp("bart")
    model = build(find("bart"), SEQ2SEQ, folder / "model")
    return model, folder / "out", run(model, folder / "out", None)


@pytest.mark.parametrize(
    ("model_type", "task", "model_class", "files"),
    [
        ("qwen3", PAST, "ORTModelForCausalLM", ("model.onnx",)),
        ("mt5", SEQ2SEQ, "ORTModelForSeq2SeqLM", MERGED),
        ("whisper", "automatic-speech-recognition-with-past", "ORTModelForSpeechSeq2Seq", MERGED),
        ("vision-encoder-decoder", "image-to-text-with-past", "ORTModelForVision2Seq", MERGED),
        ("wav2vec2", "automatic-speech-recognition", "ORTModelForCTC", ("model.onnx",)),
        ("clip", "zero-shot-image-classification", "ORTModelForZeroShotImageClassification", ("model.onnx",)),
        ("segformer", "semantic-segmentation", "ORTModelForSemanticSegmentation", ("model.onnx",)),
        ("detr", "object-detection", "ORTModelForCustomTasks", ("model.onnx",)),
        ("layoutlm", "token-classification", "ORTModelForCustomTasks", ("model.onnx",)),
        ("longformer", "feature-extraction", "ORTModelForCustomTasks", ("model.onnx",)),
        ("mpt", "text-classification", "ORTModelForSequenceClassification", ("model.onnx",)),
        ("deberta-v2", "fill-mask", "ORTModelForMaskedLM", ("model.onnx",)),
    ],
)
def test_an_architecture_is_exported_tagged_and_right_in_every_module(
    tmp_path: Path, model_type: str, task: str, model_class: str, files: tuple[str, ...]
) -> None:
    model = build(find(model_type), task, tmp_path / "model")
    manifest = run(model, tmp_path / "out", task)
    assert manifest.optimum.model_class == model_class
    assert manifest.optimum.files == files == tuple(sorted(path.name for path in (tmp_path / "out").glob("*.onnx")))
    nodes = sum(graph.nodes for graph in manifest.graphs)
    traced = sum(graph.traced for graph in manifest.graphs)
    assert traced + sum(graph.inferred for graph in manifest.graphs) == nodes
    assert traced >= TRACED * nodes
    assert all(result.passed for result in manifest.parity)
    for result in check_modules(tmp_path / "out", checkpoint.read(model), task, None):
        assert result.first_problem is None
        assert result.share >= COMPARED


@pytest.mark.parametrize("exported", ["gpt2", "bart"])
def test_text_is_generated_with_and_without_cache_alone_and_in_a_padded_batch(
    exported: str, request: pytest.FixtureRequest
) -> None:
    _, _, manifest = request.getfixturevalue(exported)
    generated = [result for result in manifest.parity if result.output == "tokens"]
    assert len(generated) == 4
    assert sum("without cache" in result.case for result in generated) == 2
    assert sum("padded" in result.case for result in generated) == 2
    assert all(int(result.case.split()[-2]) >= 20 for result in generated), "ties cut the comparison short"


def test_the_merged_decoder_has_the_interface_of_optimums_own(
    bart: tuple[Path, Path, Manifest], tmp_path: Path
) -> None:
    model, ours, _ = bart
    main_export(str(model), output=tmp_path / "optimum", task=SEQ2SEQ, local_files_only=True, do_validation=False)
    for name in MERGED:
        graphs = [onnx.load(folder / name).graph for folder in (ours, tmp_path / "optimum")]
        assert [value.name for value in graphs[0].input] == [value.name for value in graphs[1].input]
        assert [value.name for value in graphs[0].output] == [value.name for value in graphs[1].output]


def test_a_weight_of_both_branches_and_a_tied_one_are_stored_once(bart: tuple[Path, Path, Manifest]) -> None:
    _, out, _ = bart
    initializers = onnx.load(out / "decoder_model_merged.onnx").graph.initializer
    vocabulary = [tensor.name for tensor in initializers if sorted(tensor.dims) == [32, 300]]
    assert len(vocabulary) == 1, vocabulary
    names = [tensor.name for tensor in initializers]
    assert names.count("model.decoder.layers.0.self_attn.q_proj.weight.transposed") == 1


def test_two_exports_of_an_encoder_decoder_are_byte_identical(
    bart: tuple[Path, Path, Manifest], tmp_path: Path
) -> None:
    model, out, _ = bart
    run(model, tmp_path / "again", None)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_check_compares_a_folder_that_optimum_exported(bart: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    model, _, _ = bart
    main_export(str(model), output=tmp_path / "optimum", task=SEQ2SEQ, local_files_only=True, do_validation=False)
    findings = check_folder(tmp_path / "optimum", task=None, against=str(model), atol=None)
    assert findings.compared is not None
    assert {"encoder_model.onnx", "decoder_model_merged.onnx"} == {result.graph for result in findings.compared.parity}


def test_another_token_is_a_failure_unless_pytorch_was_undecided(gpt2: tuple[Path, Path, Manifest]) -> None:
    _, out, _ = gpt2
    model = optimum.onnxruntime.ORTModelForCausalLM.from_pretrained(out, local_files_only=True)
    inputs = {"input_ids": np.array([[1, 9, 7]]), "attention_mask": np.ones((1, 3), np.int64)}
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "output_logits": True}
    made = model.generate(
        **{name: torch.from_numpy(value) for name, value in inputs.items()}, **options, return_dict_in_generate=True
    )
    tokens = made.sequences[:, 3:].numpy().copy()
    tokens[0, 4] += 1
    margins = np.full(tokens.shape, 0.5)
    prompt = Prompt("p", inputs, inputs["input_ids"], tokens, margins, torch.stack(made.logits, dim=1).numpy())
    result, difference = generation.compare(model, prompt, "model.onnx", Tolerance(1e-4), use_cache=True)
    assert (result.passed, result.max_abs, difference.measured) == (False, 1.0, 0.0)
    with pytest.raises(ParityFailedError, match="different texts"):
        generation.require([result])
    margins[0, 4] = 1e-5
    result, _ = generation.compare(model, prompt, "model.onnx", Tolerance(1e-4), use_cache=True)
    assert result.passed
    assert "4 steps" in result.case


def test_reading_a_text_in_one_call_finds_what_generating_it_would(gpt2: tuple[Path, Path, Manifest]) -> None:
    source, out, _ = gpt2
    model = optimum.onnxruntime.ORTModelForCausalLM.from_pretrained(out, local_files_only=True)
    pytorch = GPT2LMHeadModel.from_pretrained(source).eval()
    ids = torch.tensor([[5, 9, 7, 11, 3, 8], [1, 1, 1, 4, 9, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
    [plan] = plans(pytorch, PAST)
    prompt = generation.reference([plan], pytorch, "padded", {"input_ids": ids, "attention_mask": mask})
    result = generation.follow(model, prompt, "model.onnx", Tolerance(1e-4))
    assert result is not None
    assert result.passed
    assert "without cache" in result.case
    assert result.shapes["input_ids"] == (2, 6 + generation.STEPS - 1)
    other_text = replace(prompt, tokens=(prompt.tokens + 1) % 50)
    assert generation.follow(model, other_text, "model.onnx", Tolerance(1e-4)) is None
    without_padding = {**prompt.inputs, "attention_mask": np.ones_like(prompt.inputs["attention_mask"])}
    assert generation.follow(model, replace(prompt, inputs=without_padding), "model.onnx", Tolerance(1e-4)) is None


def test_the_row_without_padding_is_generated_alike_alone(gpt2: tuple[Path, Path, Manifest]) -> None:
    source, _, _ = gpt2
    pytorch = GPT2LMHeadModel.from_pretrained(source).eval()
    [plan] = plans(pytorch, PAST)
    ids = torch.tensor([[1, 1, 4, 9], [5, 9, 7, 11]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    alone = generation.reference([plan], pytorch, "both", {"input_ids": ids, "attention_mask": mask}).alone()
    assert alone is not None
    inputs = {name: torch.from_numpy(value) for name, value in alone.inputs.items()}
    assert inputs["input_ids"].tolist() == [[5, 9, 7, 11]]
    expected = generation.reference([plan], pytorch, "alone", inputs)
    np.testing.assert_array_equal(alone.tokens, expected.tokens)
    np.testing.assert_allclose(alone.logits, expected.logits, atol=1e-5)
    padded = generation.reference([plan], pytorch, "p", {"input_ids": ids[:1], "attention_mask": mask[:1]})
    assert padded.alone() is None


def test_a_model_without_cache_says_how_to_load_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(find("llama"), "text-generation", tmp_path / "model")
    manifest = run(model, tmp_path / "out", "text-generation")
    assert any("use_cache=False" in note for note in manifest.notes)
    engine.summary(manifest, Path("out"))
    assert "ORTModelForCausalLM.from_pretrained('out', use_cache=False)" in capsys.readouterr().out


_GOOD = Outcome(
    passed=True,
    exported=True,
    max_abs=1e-6,
    nodes=200,
    traced=199,
    inferred=1,
    calls=30,
    compared=30,
    least_compared=1.0,
    module_rel=1e-6,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"passed": False, "problem": "parity_failed"}, "optimum-cli passes, modelexport does not: parity_failed"),
        ({"inferred": 0}, "1 nodes have no tag"),
        ({"traced": 197, "inferred": 3}, "only 98.5 % of the nodes are traced"),
        ({"module_problem": "The first module that differs is x"}, "The first module that differs is x"),
        ({"module_rel": None}, "no module was compared"),
        ({"least_compared": 0.89}, "only 89.0 % of the module calls were compared"),
    ],
)
def test_the_table_of_breadth_names_what_must_not_be(change: dict[str, Any], said: str | None) -> None:
    row = Row("bert", "fill-mask", Outcome(passed=True), replace(_GOOD, **change))
    assert [said in found if said else found for found in shortcomings([row])] == ([True] if said else [])


def test_images_that_keep_their_size_are_compared_in_batches_of_one_size(tmp_path: Path) -> None:
    """Swin2SR's processor leaves images as large as they are, so three sizes make no batch."""
    animal = replace(find("swin2sr"), image=("Swin2SRImageProcessor", {}))
    folder = build(animal, "image-to-image", tmp_path)
    makers = preprocessors.load(folder)
    model = AutoModelForImageToImage.from_pretrained(folder).eval()
    (graph,) = plans(model, "image-to-image", list(makers))
    *_, last = make_cases(graph, makers, ["pixel_values"])
    assert last.source == {"pixel_values"}
    assert last.feeds["pixel_values"].shape[0] == 3


def other(model_type: str, **config: object) -> Animal:
    """An animal of the zoo with another config."""
    animal = find(model_type)
    return replace(animal, config={**animal.config, **config})


def test_falcon_with_several_key_value_heads_is_exported(tmp_path: Path) -> None:
    """Optimum's dummy cache has one head for it, and the trace fails."""
    model = build(other("falcon", new_decoder_architecture=True, num_kv_heads=2), PAST, tmp_path / "model")
    with pytest.raises(RuntimeError, match="Sizes of tensors"):
        main_export(str(model), output=tmp_path / "optimum", task=PAST, local_files_only=True, do_validation=False)
    assert run(model, tmp_path / "out", PAST).optimum.model_class == "ORTModelForCausalLM"


@pytest.mark.parametrize(
    ("animal", "task"),
    [
        (other("longt5", encoder_attention_type="transient-global"), SEQ2SEQ),
        (other("whisper", max_source_positions=100), "automatic-speech-recognition-with-past"),
        (other("llama", pad_token_id=None), "text-classification"),
        (find("perceiver"), "image-classification"),
        (find("deepseek_v3", "many experts"), PAST),
        (find("maskformer", "its own processor"), "image-segmentation"),
    ],
    ids=[
        "LongT5 with global blocks",
        "Whisper for short sounds",
        "a classifier without padding token",
        "Perceiver for images",
        "experts that no traced token chose",
        "MaskFormer for images of any size",
    ],
)
def test_a_config_that_optimum_cannot_trace_is_exported(tmp_path: Path, animal: Animal, task: str) -> None:
    assert run(build(animal, task, tmp_path / "model"), tmp_path / "out", task).task == task


def test_siglip_reads_the_mask_of_its_tokenizer(tmp_path: Path) -> None:
    """Optimum's graph has no mask: what PyTorch takes for padding it takes for words."""
    task = "zero-shot-image-classification"
    model = build(find("siglip"), task, tmp_path / "model")
    manifest = run(model, tmp_path / "out", task)
    assert [tensor.name for tensor in manifest.graphs[0].inputs] == ["input_ids", "pixel_values", "attention_mask"]
    assert manifest.optimum.model_class == "ORTModelForZeroShotImageClassification"
    main_export(str(model), output=tmp_path / "optimum", task=task, local_files_only=True, do_validation=False)
    with pytest.raises(ParityFailedError, match="output 'text_embeds'"):
        check_folder(tmp_path / "optimum", task=task, against=str(model), atol=None)


def test_siglip_whose_tokenizer_makes_no_mask_is_exported_without(tmp_path: Path) -> None:
    task = "zero-shot-image-classification"
    model = build(find("siglip"), task, tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "model_input_names": ["input_ids"]}))
    manifest = run(model, tmp_path / "out", task)
    assert [tensor.name for tensor in manifest.graphs[0].inputs] == ["input_ids", "pixel_values"]


@pytest.mark.parametrize("head", ["feature-extraction", "fill-mask"])
def test_a_repo_of_sentence_transformers_gives_what_its_modules_pool(tmp_path: Path, head: str) -> None:
    """Some of them were saved with the head of their pretraining. No level of the module paths is lost."""
    model = build(find("bert", "sentence-transformers"), head, tmp_path / "model")
    manifest = run(model, tmp_path / "out", None)
    assert (manifest.task, manifest.optimum.model_class) == ("feature-extraction", "ORTModelForFeatureExtraction")
    (graph,) = manifest.graphs
    assert [output.name for output in graph.outputs] == ["last_hidden_state"]
    assert "encoder.layer.0.attention.self.query" in {module.path for module in graph.modules}


def test_big_birds_sparse_attention_is_told_to_be_exported_as_full(tmp_path: Path) -> None:
    animal = other("big_bird", attention_type="block_sparse", block_size=4, num_random_blocks=1)
    manifest = run(build(animal, "fill-mask", tmp_path / "model"), tmp_path / "out", None)
    assert any("full attention" in note and "28 tokens" in note for note in manifest.notes)


def test_what_optimum_cannot_run_is_refused_before_the_weights_are_read() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no class that runs them"):
        tasks.resolve("vits", ("VitsModel",), requested="text-to-audio", pipeline_tag=None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}),
        ("config.json", {"architecture": "resnet18", "num_features": 512, "pretrained_cfg": {"tag": "a1_in1k"}}),
    ],
)
def test_other_libraries_are_refused_by_name(tmp_path: Path, name: str, content: dict[str, object]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text(json.dumps(content))
    with pytest.raises(UnsupportedLibraryError, match=r"diffusers|timm"):
        run(tmp_path / "model", tmp_path / "out", None)


def test_a_model_that_torch_cannot_trace_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(find("vit"), "image-classification", tmp_path / "model")

    def untraceable(*_: object, **__: object) -> object:
        raise RuntimeError("aten::nothing")

    monkeypatch.setattr("modelexport.tracing.trace", untraceable)
    with pytest.raises(ExportFailedError, match="ViTForImageClassification"):
        run(model, tmp_path / "out", "image-classification")
