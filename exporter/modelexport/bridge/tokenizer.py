"""Tokenizer files of transformers 5 as 4.57 reads them, chosen by evidence: the ids.

5.x saves a tokenizer whole in ``tokenizer.json`` and takes that file at its word. 4.57 builds on it by class: it does
not know ``TokenizersBackend``, it adds what it thinks is missing (Llama: a bos), and it wants other names in
``tokenizer_config.json``. So the ids that ``tokenizer.json`` itself gives, through the tokenizers library alone, are
the reference; the first of these that reproduces them on every text is taken:

1. the files as they are;
2. ``extra_special_tokens`` given its old name where it is a list, and ``model_input_names`` written out;
3. the same, read by ``PreTrainedTokenizerFast``, which follows ``tokenizer.json``.

Tokenizers without ``tokenizer.json`` (written in Python) have the same files in both releases; only the second step is
tried.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from modelexport.checkpoint.folder import Folder
from modelexport.contract.errors import TokenizerUnreadableError
from modelexport.parity.samples import PAIRS, texts_for

CONFIG, BACKEND = "tokenizer_config.json", "tokenizer.json"
_DEFAULT_INPUTS = ("input_ids", "attention_mask")
_INPUTS: Mapping[str, tuple[str, ...]] = {
    "BertTokenizer": ("input_ids", "token_type_ids", "attention_mask"),
    "CanineTokenizer": ("input_ids", "attention_mask", "token_type_ids"),
    "DPRQuestionEncoderTokenizer": ("input_ids", "token_type_ids", "attention_mask"),
    "DebertaTokenizer": ("input_ids", "attention_mask", "token_type_ids"),
    "DebertaV2Tokenizer": ("input_ids", "attention_mask", "token_type_ids"),
    "FNetTokenizer": ("input_ids", "token_type_ids"),
    "LayoutLMv2Tokenizer": ("input_ids", "attention_mask", "token_type_ids"),
    "LayoutLMv3Tokenizer": ("input_ids", "attention_mask", "bbox"),
    "LxmertTokenizer": ("input_ids", "token_type_ids", "attention_mask"),
    "MarkupLMTokenizer": ("input_ids", "token_type_ids", "attention_mask"),
    "MobileBertTokenizer": ("input_ids", "token_type_ids", "attention_mask"),
    "TapasTokenizer": ("input_ids", "attention_mask", "token_type_ids"),
}
"""``model_input_names`` of the tokenizer classes of 5.23 for which it is not the default."""

_WORDS_AND_BOXES = (
    "LayoutLMv2Tokenizer",
    "LayoutLMv3Tokenizer",
    "LayoutXLMTokenizer",
    "MarkupLMTokenizer",
    "TapasTokenizer",
)
"""Classes that take more than text, so no text set can compare them."""


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a new ``tokenizer_config.json``, None where the file is right; and what was changed."""

    config: Mapping[str, Any] | None = None
    note: str | None = None


def translate_tokenizer(root: Path, scratch: Path) -> TokenizerFiles:
    """Find the smallest change with which 4.57 tokenizes as ``tokenizer.json`` says.

    Args:
        root: the checkpoint's folder.
        scratch: an empty folder to try candidates in.

    Raises:
        TokenizerUnreadableError: there is a tokenizer and 4.57 reads it with no change that we know.
    """
    folder = Folder(root)
    if not folder.has(CONFIG):
        return TokenizerFiles()
    original = folder.json(CONFIG, TokenizerUnreadableError)
    declared = str(original.get("tokenizer_class") or "")
    reference = _reference(root) if folder.has(BACKEND) else None
    failure = "no reason was given"
    for number, (config, note) in enumerate(_candidates(original, declared, reference is not None)):
        try:
            tokenizer = _load(root, scratch / str(number), None if config is original else config)
        except Exception as error:  # noqa: BLE001 - whatever a tokenizer class raises, the next candidate may load
            failure = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        if set(tokenizer.model_input_names) != set(_inputs(original, declared)):
            failure = f"it returns {', '.join(tokenizer.model_input_names)}"
            continue
        if declared in _WORDS_AND_BOXES or reference is None or (difference := _differs(tokenizer, reference)) is None:
            return TokenizerFiles() if config is original else TokenizerFiles(config, note)
        failure = f"it gives other ids for {difference!r}"
    raise TokenizerUnreadableError(
        f"The tokenizer was saved by transformers 5 ({declared or 'no class named'}) and transformers 4.57 cannot "
        f"reproduce it ({failure}). Save it with transformers 4.57, or remove the tokenizer files to export the model "
        "alone."
    )


def _candidates(original: dict[str, Any], declared: str, has_backend: bool) -> Iterator[tuple[dict[str, Any], str]]:
    yield original, ""
    config = dict(original)
    changes = []
    if isinstance(config.get("extra_special_tokens"), list):
        extra = config.pop("extra_special_tokens")
        config["additional_special_tokens"] = [*(config.get("additional_special_tokens") or []), *extra]
        changes.append("extra_special_tokens got its former name additional_special_tokens")
        yield dict(config), _note(changes)
    if "model_input_names" not in config:
        config["model_input_names"] = list(_inputs(original, declared))
        changes.append("model_input_names was written out")
        yield dict(config), _note(changes)
    if has_backend and declared != "PreTrainedTokenizerFast":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        changes.append(f"tokenizer_class is PreTrainedTokenizerFast instead of {declared or 'nothing'}")
        yield dict(config), _note(changes)


def _note(changes: list[str]) -> str:
    return f"tokenizer_config.json was changed so that transformers 4.57 gives the same ids: {'; '.join(changes)}."


def _inputs(config: Mapping[str, Any], declared: str) -> tuple[str, ...]:
    """What the tokenizer returns in 5.x."""
    named = config.get("model_input_names")
    return tuple(named) if isinstance(named, list) else _INPUTS.get(declared.removesuffix("Fast"), _DEFAULT_INPUTS)


def _reference(root: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(Folder(root).path(BACKEND)))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerUnreadableError(
            f"tokenizer.json cannot be read by tokenizers 0.22: {str(error)[:200]}. "
            "Save the tokenizer with transformers 4.57, or remove the tokenizer files to export the model alone."
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _load(root: Path, scratch: Path, config: Mapping[str, Any] | None) -> PreTrainedTokenizerBase:
    """The tokenizer of ``root`` with another ``tokenizer_config.json``."""
    folder = root
    if config is not None:
        scratch.mkdir(parents=True)
        for entry in root.iterdir():
            if entry.name != CONFIG and entry.is_file():
                (scratch / entry.name).symlink_to(entry.resolve())
        (scratch / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        folder = scratch
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _differs(tokenizer: PreTrainedTokenizerBase, reference: Tokenizer) -> str | None:
    """The first text for which the ids differ, None where none does."""
    for text in texts_for(tokenizer.all_special_tokens):
        if tokenizer(text, verbose=False)["input_ids"] != reference.encode(text).ids:
            return text[:40]
    for first, second in PAIRS:
        if tokenizer(first, second, verbose=False)["input_ids"] != reference.encode(first, second).ids:
            return f"{first} + {second}"
    return None
