"""Fixtures of the exporter's tests. They need the exporter's environment: ``make test-exporter``."""

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports ONNX Runtime; its children inherit it

import pytest
import torch

from modelexport.contract.manifest import Options
from modelexport.export import Origin, export
from tests.exporter import tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, as a model folder. Read only."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    tiny.save_text(folder)
    return folder


@pytest.fixture(scope="session")
def exported_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``modelexport export`` makes of :func:`bert`. Read only; copy it to change it."""
    out = tmp_path_factory.mktemp("exported") / "bert"
    export(bert, out, Options(), origin=Origin(), overwrite=False, emit=lambda _: None)
    return out
