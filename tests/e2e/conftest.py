"""Fixtures of the end-to-end tests: installed console scripts, a local Hub over HTTP, real models."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.model import download
from tests.hub.client import LocalHub

TINY = """
import sys; from pathlib import Path
from tests.exporter import tiny
tiny.save_text(Path(sys.argv[1]) / "bert")
tiny.save_vit(Path(sys.argv[1]) / "vit")
from tests.zoo.build import build
from tests.zoo.models import find
build(find("gpt2"), "text-generation-with-past", Path(sys.argv[1]) / "gpt2")
"""


@pytest.fixture(scope="session")
def bot() -> Path:
    """The installed ``modelexport-bot``."""
    script = Path(sys.executable).with_name("modelexport-bot")
    assert script.exists(), "run `make test-e2e`, or install the bot into this interpreter's environment"
    return script


@pytest.fixture(scope="session")
def exporter(bot: Path) -> Path:
    """The interpreter of the exporter's environment, as ``modelexport-bot setup`` prints it."""
    done = subprocess.run([bot, "setup"], check=True, capture_output=True, text=True)
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """One Hub for all tests; each uses repos of its own."""
    with LocalHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real trained model ``sentence-transformers/all-MiniLM-L6-v2`` as a folder."""
    return download()


@pytest.fixture(scope="session")
def tiny_models(exporter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT (``bert``), a tiny ViT (``vit``) and a tiny GPT-2 (``gpt2``)."""
    folder = tmp_path_factory.mktemp("tiny")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run([exporter, "-c", TINY, folder], check=True, env=environment)
    return folder


@pytest.fixture
def hf_home(tmp_path: Path) -> Path:
    """An empty home for the Hub clients of one test."""
    return tmp_path / "hf-home"
