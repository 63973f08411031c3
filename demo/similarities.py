"""Sentence similarities from the ONNX model on the Hub, next to PyTorch's from the original folder.

Runs in the exporter's environment: ``similarities.py REPO REVISION FOLDER``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from rich.console import Console
from rich.table import Table
from transformers import AutoModel, AutoTokenizer

SENTENCES = (
    "A man is eating a piece of bread.",
    "Somebody is having food.",
    "The girl plays the violin in a concert hall.",
    "Quarterly revenue rose by four percent.",
)


def main() -> None:
    """Print the table, and fail if the two disagree."""
    repo, revision, folder = sys.argv[1:]
    onnx = ORTModelForFeatureExtraction.from_pretrained(repo, revision=revision, subfolder="onnx")
    loaded = Path(onnx.session._model_path)  # noqa: SLF001  Optimum has no other name for it
    assert loaded.name == "model.onnx" and "snapshots" in loaded.parts, f"not the published file: {loaded}"
    published = embed(onnx, AutoTokenizer.from_pretrained(repo, revision=revision, subfolder="onnx"))
    original = embed(AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))
    table = Table(f"similarity to {SENTENCES[0]!r}", "ONNX from the Hub", "PyTorch")
    for sentence, ours, theirs in zip(SENTENCES, published @ published[0], original @ original[0], strict=True):
        table.add_row(sentence, f"{ours:.6f}", f"{theirs:.6f}")
    Console().print(table)
    difference = float((published - original).abs().max())
    print(f"largest difference of the embeddings: {difference:.2e}")
    assert difference < 1e-4, "the published model computes something else"


@torch.no_grad()
def embed(model: Callable[..., Any], tokenizer: Callable[..., Any]) -> torch.Tensor:
    """Mean of the token embeddings, normalised, as the repo's ``modules.json`` says: float32 [sentences, 384]."""
    batch = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    mean = (tokens * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)


main()
