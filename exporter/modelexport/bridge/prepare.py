"""The folder that transformers 4.57 loads: the checkpoint's own, or a translation of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelexport.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prepared:
    """What to load, and how.

    Attributes:
        folder: a folder that ``from_pretrained`` of transformers 4.57 understands.
        config: the content of its ``config.json``.
        notes: every deviation from the checkpoint, one sentence each.
        attn_implementation: what computes as the release that saved the checkpoint would; None leaves the choice to 4.57.
        key_mapping: weight renames for ``from_pretrained(key_mapping=…)``, regular expression to replacement.
    """

    folder: Path
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    attn_implementation: str | None = None
    key_mapping: Mapping[str, str] | None = None


def prepare(checkpoint: Checkpoint, scratch: Path) -> Prepared:
    """Translate the checkpoint where it needs to be.

    Args:
        checkpoint: what was read.
        scratch: an empty folder that lives as long as the model is loaded; written to only where something is translated.

    Raises:
        CheckpointTooNewError: something in the checkpoint has no equivalent in transformers 4.57.
    """
    return Prepared(folder=checkpoint.root, config=checkpoint.config, notes=checkpoint.notes)
