"""Tokenizers saved by transformers 5 give the same ids in 4.57 once the bridge has been over them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

from transformers import AutoTokenizer

from modelexport import bridge, bundle, checkpoint
from modelexport.bridge import preparing
from modelexport.bridge.tokenizer import TokenizerFiles, translate_tokenizer
from modelexport.contract.errors import TokenizerUnreadableError
from tests.fixtures_v5 import checkpoints

pytestmark = pytest.mark.engine
DATA = Path(checkpoints.__file__).parent / "tokenizer_data"
NAMES = sorted(path.name for path in DATA.iterdir())
CHANGED = ["albert", "cohere", "gemma", "llama2", "llama3", "qwen2", "t5"]


def published(name: str, folder: Path) -> Path:
    """A BERT checkpoint with the tokenizer of the fixture, bundled and verified."""
    root = checkpoints.build("bert", folder / "checkpoint")
    for path in (DATA / name).iterdir():
        if path.name != "results.json":
            shutil.copyfile(path, root / path.name)
    read = checkpoint.read(root)
    prepared = bridge.prepare(read, folder / "scratch")
    (out := folder / "out").mkdir()
    bundle.bundle(read, prepared, out)
    bundle.verify(prepared.folder, out)
    return out


def results(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / name / "results.json").read_text())
    return content


@pytest.mark.parametrize("name", NAMES)
def test_the_published_tokenizer_returns_what_transformers_5_returns(name: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published(name, tmp_path))
    expected = results(name)
    for text, returned in expected["texts"]:
        assert without_mask(tokenizer(text)) == returned, text
    for first, second, returned in expected["pairs"]:
        assert without_mask(tokenizer(first, second)) == returned, (first, second)


@pytest.mark.parametrize("name", CHANGED)
def test_without_the_translation_a_tokenizer_is_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "translate_tokenizer", lambda *_: TokenizerFiles())
    try:
        tokenizer = AutoTokenizer.from_pretrained(published(name, tmp_path))
        wrong = [text for text, returned in results(name)["texts"] if without_mask(tokenizer(text)) != returned]
    except (TokenizerUnreadableError, KeyError):  # it does not load, or returns no mask
        return
    assert wrong


@pytest.mark.parametrize("name", NAMES)
def test_the_published_tokenizer_decodes_as_transformers_5_does(name: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published(name, tmp_path))
    expected = results(name)
    for (text, returned), decoded in zip(expected["texts"], expected["decoded"], strict=True):
        assert tokenizer.decode(returned["input_ids"]) == decoded, text


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CHANGED)))
def test_a_tokenizer_that_loads_as_it_is_keeps_its_bytes(name: str, tmp_path: Path) -> None:
    out = published(name, tmp_path)
    assert (out / "tokenizer_config.json").read_bytes() == (DATA / name / "tokenizer_config.json").read_bytes()


def test_the_chat_template_and_special_tokens_come_along(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published("llama3", tmp_path))
    assert tokenizer.additional_special_tokens == ["<|im|>"]
    assert tokenizer.model_max_length == 64
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im|>hi"


def test_a_tokenizer_that_cannot_be_read_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(DATA / "llama3", folder)
    backend = json.loads((folder / "tokenizer.json").read_text())
    backend["model"]["type"] = "Something"
    (folder / "tokenizer.json").write_text(json.dumps(backend))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(TokenizerUnreadableError, match=r"tokenizer\.json cannot be read"):
        translate_tokenizer(folder, tmp_path / "scratch")


def without_mask(encoding: Any) -> dict[str, list[int]]:
    encoding.pop("attention_mask")
    return dict(encoding)
