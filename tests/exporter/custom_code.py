"""Model folders whose model is code of their own: a BERT that doubles what it has computed."""

import json
from pathlib import Path
from typing import Any

from tests.exporter import tiny

MODELING = """
import torch
from transformers import BertModel

from .layers_own import Doubled


class OwnBertModel(BertModel):
    def __init__(self, config, **options):
        super().__init__(config, **options)
        self.doubled = Doubled()

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **options):
        outputs = super().forward(input_ids, attention_mask, token_type_ids, **options)
        outputs["last_hidden_state"] = self.doubled(outputs["last_hidden_state"])
        return outputs
"""

LAYERS = """
import torch


class Doubled(torch.nn.Module):
    def forward(self, states):
        return states * 2.0
"""


def save(folder: Path, *, before: str = "", auto_map: dict[str, Any] | None = None, **config: Any) -> Path:
    """A BERT whose class is in ``modeling_own.py``.

    Args:
        before: code at the top of that file.
        auto_map: instead of one that names that class.
        config: other entries of ``config.json``.
    """
    tiny.save_text(folder)
    (folder / "modeling_own.py").write_text(before + MODELING)
    (folder / "layers_own.py").write_text(LAYERS)
    change_config(
        folder,
        architectures=["OwnBertModel"],
        auto_map={"AutoModel": "modeling_own.OwnBertModel"} if auto_map is None else auto_map,
        **config,
    )
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    """Overwrite entries of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
