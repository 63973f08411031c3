"""The folder that transformers 4.57 loads: the checkpoint's own, or a translation of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelexport import temporary
from modelexport.bridge.attention import attention_for
from modelexport.bridge.config import Translated, is_from_5, translate
from modelexport.bridge.experts import Split, split
from modelexport.bridge.processor import translate_processor
from modelexport.bridge.rope import length_limit
from modelexport.bridge.tokenizer import translate_tokenizer
from modelexport.bridge.weights import renames
from modelexport.checkpoint import Checkpoint, CustomCode
from modelexport.checkpoint.folder import Folder
from modelexport.checkpoint.native import is_native_model_type
from modelexport.contract.errors import CustomCodeError, TokenizerUnreadableError

CODE = "custom_code"
"""Folder of the repo's code beside the prepared files; also the name of the package that it becomes."""


@dataclass(frozen=True)
class Prepared:
    """What to load, and how.

    Attributes:
        folder: a folder that ``from_pretrained`` of transformers 4.57 understands.
        config: the content of its ``config.json``.
        notes: every deviation from the checkpoint, one sentence each.
        attn_implementation: what computes as the checkpoint was trained; None leaves the choice to 4.57.
        key_mapping: weight renames for ``from_pretrained(key_mapping=…)``, regular expression to replacement.
        ties: parameters that share the weights of another and that 4.57 would not tie itself, target to source.
        split: the tensors with fused experts apart, to be loaded instead of the files; None where none are fused.
        translated: names of the files in ``folder`` that are not the checkpoint's own.
        custom_code: the repo's code that defines the model, in ``folder / CODE``; None for a model of transformers.
    """

    folder: Path
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    attn_implementation: str | None = None
    key_mapping: Mapping[str, str] | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    translated: tuple[str, ...] = ()
    custom_code: CustomCode | None = None


def prepare(checkpoint: Checkpoint, scratch: Path) -> Prepared:
    """Translate the checkpoint where it needs to be.

    Args:
        checkpoint: what was read.
        scratch: an empty folder that lives as long as the model is loaded; written to only where something is
            translated.

    Raises:
        CheckpointTooNewError: something in the config has no equivalent in transformers 4.57.
        TokenizerUnreadableError: the tokenizer has none.
        CustomCodeError: the model is code of the repo, and transformers could not read the exported folder without it.
    """
    config = dict(checkpoint.config)
    config.setdefault("model_type", checkpoint.model_type)
    result = Translated(config, changed=config != checkpoint.config)
    mapping = apart = None
    if from_5 := is_from_5(config):
        result = translate(config, checkpoint.model_type)
        apart = split(checkpoint)
        mapping = renames(replace(checkpoint, tensors=apart.tensors) if apart else checkpoint, result.config)
    if checkpoint.custom_code is not None:
        result = _without_auto_map(checkpoint, result)
    files: dict[str, Mapping[str, Any]] = {"config.json": result.config} if result.changed else {}
    notes = [*checkpoint.notes, *result.notes]
    if limit := length_limit(result.config):
        notes.append(
            f"The graph is right for sequences of up to {limit} tokens: beyond them the model changes its rotary "
            "embeddings, which ONNX export cannot follow."
        )
    if apart:
        notes.append("Experts that transformers 5 stored as one tensor are read apart, as transformers 4.57 has them.")
    if mapping:
        notes.append("Weights that transformers 5 renamed got the names that transformers 4.57 has for them.")
    if from_5 or _tokenizer_is_from_5(checkpoint):
        with temporary.folder() as trial:
            tokenizer = translate_tokenizer(checkpoint.root, trial)
        if tokenizer.config is not None and tokenizer.note is not None:
            files["tokenizer_config.json"] = tokenizer.config
            notes.append(tokenizer.note)
    if processor := translate_processor(checkpoint.root):
        files["preprocessor_config.json"] = processor
        notes.append(
            "preprocessor_config.json was written from processor_config.json, for readers of the older layout."
        )
    return Prepared(
        folder=_write(checkpoint, scratch, files) if files else checkpoint.root,
        config=result.config,
        notes=tuple(notes),
        attn_implementation=attention_for(result.config),
        key_mapping=mapping,
        ties=result.ties or {},
        split=apart,
        translated=tuple(sorted(files)),
        custom_code=checkpoint.custom_code,
    )


def _without_auto_map(checkpoint: Checkpoint, result: Translated) -> Translated:
    """The config for readers that do not run the code: those of the exported folder, which does not need it."""
    if is_native_model_type(checkpoint.model_type) is False:
        raise CustomCodeError(
            f"transformers has no model type {checkpoint.model_type!r} without the code of the repo, so Optimum could "
            "not load the exported folder. It can be exported where its model_type is one of transformers' own."
        )
    config = {key: value for key, value in result.config.items() if key != "auto_map"}
    note = "auto_map was left out of config.json: the exported folder needs none of the repo's code."
    return replace(result, config=config, changed=True, notes=(*result.notes, note))


def _tokenizer_is_from_5(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer was saved by 5.x beside a config that was not: it may have been updated alone."""
    if "tokenizer_config.json" not in checkpoint.tokenizer_files:
        return False
    config = Folder(checkpoint.root).json("tokenizer_config.json", TokenizerUnreadableError)
    return "backend" in config or config.get("tokenizer_class") == "TokenizersBackend"


def _write(checkpoint: Checkpoint, scratch: Path, files: Mapping[str, Any]) -> Path:
    """``scratch`` with the translated files, the code that was read, and links to everything else."""
    scratch.mkdir(parents=True, exist_ok=True)
    for entry in sorted(checkpoint.root.iterdir()):
        if entry.name not in files and entry.name != CODE:
            (scratch / entry.name).symlink_to(entry.resolve())
    for name, content in files.items():
        (scratch / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if checkpoint.custom_code is not None:
        (scratch / CODE).mkdir()
        for file in checkpoint.custom_code.files:
            (scratch / CODE / file.name).write_bytes(file.content)
    return scratch
