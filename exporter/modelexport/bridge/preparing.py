"""The folder that transformers 4.57 loads: the checkpoint's own, or a translation of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelexport.bridge.attention import attention_for
from modelexport.bridge.config import Translated, is_from_5, translate
from modelexport.bridge.weights import renames
from modelexport.checkpoint import Checkpoint


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
        scratch: an empty folder that lives as long as the model is loaded; written to only where something is translated.

    Raises:
        CheckpointTooNewError: something in the checkpoint has no equivalent in transformers 4.57.
    """
    config = dict(checkpoint.config)
    config.setdefault("model_type", checkpoint.model_type)
    result = Translated(config, changed=config != checkpoint.config)
    mapping = None
    if is_from_5(config):
        result = translate(config, checkpoint.model_type)
        mapping = renames(checkpoint, result.config)
    files: dict[str, Any] = {}
    if result.changed:
        files["config.json"] = result.config
    notes = (*checkpoint.notes, *result.notes)
    if mapping:
        notes += ("Weights that transformers 5 renamed were given the names that transformers 4.57 has for them.",)
    return Prepared(
        folder=_write(checkpoint.root, scratch, files) if files else checkpoint.root,
        config=result.config,
        notes=notes,
        attn_implementation=attention_for(result.config),
        key_mapping=mapping,
        ties=result.ties or {},
        translated=tuple(sorted(files)),
    )


def _write(root: Path, scratch: Path, files: Mapping[str, Any]) -> Path:
    """``scratch`` with the translated files, and links to everything else."""
    scratch.mkdir(parents=True, exist_ok=True)
    for entry in sorted(root.iterdir()):
        if entry.name not in files:
            (scratch / entry.name).symlink_to(entry.resolve())
    for name, content in files.items():
        (scratch / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return scratch
