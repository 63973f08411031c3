"""What lies beside the graphs behaves as the repo's own files do."""

import json
import shutil
from pathlib import Path

import pytest
import transformers

from modelexport import bridge, bundle, checkpoint
from modelexport.contract.errors import (
    CheckpointUnreadableError,
    ConfigInvalidError,
    FolderInvalidError,
    TokenizerUnreadableError,
)

pytestmark = pytest.mark.engine


@pytest.fixture
def source(bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT, with more beside it."""
    folder = tmp_path / "source"
    shutil.copytree(bert, folder)
    (folder / "generation_config.json").write_text('{"max_length": 7}')
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    (folder / "sentence_bert_config.json").write_text("{}")
    (folder / "README.md").write_text("# hello")
    return folder


def published(source: Path) -> Path:
    read = checkpoint.read(source)
    prepared = bridge.prepare(read, source.parent / "scratch")
    (out := source.parent / "out").mkdir()
    result = bundle.bundle(read, prepared, out)
    assert list(result.files) == sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    bundle.verify(prepared.folder, out)
    return out


def test_the_files_are_the_repos_own_bytes_and_only_those_that_are_needed(source: Path) -> None:
    out = published(source)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= names
    assert "additional_chat_templates/tool.jinja" in names
    assert not names & {"README.md", "sentence_bert_config.json", "model.safetensors"}
    assert all((out / name).read_bytes() == (source / name).read_bytes() for name in names)


def test_links_are_followed_and_files_written(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").rename(source / "real.json")
    (source / "tokenizer.json").symlink_to("real.json")
    assert not (published(source) / "tokenizer.json").is_symlink()


def test_a_link_out_of_the_folder_is_never_published(source: Path, tmp_path: Path) -> None:
    read = checkpoint.read(source)
    prepared = bridge.prepare(read, tmp_path / "scratch")
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.json").symlink_to("/etc/hostname")
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointUnreadableError, match="outside of the model folder"):
        bundle.bundle(read, prepared, tmp_path / "out")


def test_a_tokenizer_that_does_not_load_is_an_error(source: Path) -> None:
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerUnreadableError):
        published(source)


def test_a_tokenizer_that_gives_other_ids_is_noticed(source: Path) -> None:
    out = published(source)
    backend = json.loads((out / "tokenizer.json").read_text())
    vocabulary = backend["model"]["vocab"]
    first, second = [token for token in vocabulary if not token.startswith("[")][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (out / "tokenizer.json").write_text(json.dumps(backend))
    with pytest.raises(FolderInvalidError, match="gives another result for"):
        bundle.verify(source, out)


def test_a_config_that_means_something_else_is_noticed(source: Path) -> None:
    out = published(source)
    (out / "config.json").write_text(
        json.dumps(json.loads((out / "config.json").read_text()) | {"layer_norm_eps": 1.0})
    )
    with pytest.raises(FolderInvalidError, match=r"config\.json"):
        bundle.verify(source, out)


def test_a_generation_config_that_does_not_load_is_an_error(source: Path) -> None:
    (source / "generation_config.json").write_text("[")
    with pytest.raises(ConfigInvalidError, match=r"generation_config\.json"):
        published(source)


@pytest.mark.parametrize(
    ("processor", "file"),
    [
        (transformers.ViTImageProcessor(size={"height": 16, "width": 16}), "preprocessor_config.json"),
        (transformers.CLIPImageProcessor(), "preprocessor_config.json"),
        (transformers.WhisperFeatureExtractor(feature_size=8), "preprocessor_config.json"),
        (transformers.Wav2Vec2FeatureExtractor(), "preprocessor_config.json"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pixel_values_and_audio_features_are_compared(processor: object, file: str, source: Path) -> None:
    processor.save_pretrained(source)  # type: ignore[attr-defined]
    out = published(source)
    content = json.loads((out / file).read_text())
    for key, other in (("image_mean", [0.1, 0.2, 0.3]), ("hop_length", 80), ("do_normalize", False)):
        if key in content:
            content[key] = other
            break
    (out / file).write_text(json.dumps(content))
    with pytest.raises(FolderInvalidError, match="gives another result"):
        bundle.verify(source, out)


@pytest.mark.parametrize("part", ["image_processor", "feature_extractor"])
def test_the_parts_of_a_processor_are_also_written_in_the_older_layout(part: str, source: Path) -> None:
    processor = (
        transformers.ViTImageProcessor(size={"height": 16, "width": 16})
        if part == "image_processor"
        else transformers.WhisperFeatureExtractor(feature_size=8)
    )
    whole = {"processor_class": "SomeProcessor", part: processor.to_dict()}
    (source / "processor_config.json").write_text(json.dumps(whole))
    out = published(source)
    assert json.loads((out / "preprocessor_config.json").read_text())["processor_class"] == "SomeProcessor"
    assert json.loads((out / "processor_config.json").read_text()) == whole
