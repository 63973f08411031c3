"""The folder that transformers 4.57 loads: the checkpoint's own, or a translation of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelexport import temporary
from modelexport.bridge.attention import attention_for
from modelexport.bridge.config import Translated, is_from_5, translate
from modelexport.bridge.processor import translate_processor
from modelexport.bridge.rope import length_limit
from modelexport.bridge.tokenizer import translate_tokenizer
from modelexport.bridge.weights import renames
from modelexport.checkpoint import Checkpoint
from modelexport.checkpoint.folder import Folder
from modelexport.contract.errors import TokenizerUnreadableError


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
        translated: names of the files in ``folder`` that are not the checkpoint's own.
    """

    folder: Path
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    attn_implementation: str | None = None
    key_mapping: Mapping[str, str] | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    translated: tuple[str, ...] = ()


def prepare(checkpoint: Checkpoint, scratch: Path) -> Prepared:
    """Translate the checkpoint where it needs to be.

    Args:
        checkpoint: what was read.
        scratch: an empty folder that lives as long as the model is loaded; written to only where something is
            translated.

    Raises:
        CheckpointTooNewError: something in the config has no equivalent in transformers 4.57.
        TokenizerUnreadableError: the tokenizer has none.
    """
    config = dict(checkpoint.config)
    config.setdefault("model_type", checkpoint.model_type)
    result = Translated(config, changed=config != checkpoint.config)
    mapping = None
    if from_5 := is_from_5(config):
        result = translate(config, checkpoint.model_type)
        mapping = renames(checkpoint, result.config)
    files: dict[str, Mapping[str, Any]] = {"config.json": result.config} if result.changed else {}
    notes = [*checkpoint.notes, *result.notes]
    if limit := length_limit(result.config):
        notes.append(
            f"The graph is right for sequences of up to {limit} tokens: beyond them the model changes its rotary "
            "embeddings, which ONNX export cannot follow."
        )
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
        folder=_write(checkpoint.root, scratch, files) if files else checkpoint.root,
        config=result.config,
        notes=tuple(notes),
        attn_implementation=attention_for(result.config),
        key_mapping=mapping,
        ties=result.ties or {},
        translated=tuple(sorted(files)),
    )


def _tokenizer_is_from_5(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer was saved by 5.x beside a config that was not: it may have been updated alone."""
    if "tokenizer_config.json" not in checkpoint.tokenizer_files:
        return False
    config = Folder(checkpoint.root).json("tokenizer_config.json", TokenizerUnreadableError)
    return "backend" in config or config.get("tokenizer_class") == "TokenizersBackend"


def _write(root: Path, scratch: Path, files: Mapping[str, Any]) -> Path:
    """``scratch`` with the translated files, and links to everything else."""
    scratch.mkdir(parents=True, exist_ok=True)
    for entry in sorted(root.iterdir()):
        if entry.name not in files:
            (scratch / entry.name).symlink_to(entry.resolve())
    for name, content in files.items():
        (scratch / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return scratch
