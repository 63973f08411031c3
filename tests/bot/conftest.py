"""One local Hub for all tests of the bot, and a world of its own for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bot.world import World
from tests.hub.client import LocalHub


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's own login, workflow or settings reaches a test."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "MODELEXPORT_", "GITHUB_", "ACTIONS_", "INPUT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf-home" / "token"))


@pytest.fixture
def world(hub: LocalHub, tmp_path: Path) -> Iterator[World]:
    """A repo of alice's with weights, the bot's account, and a job whose exports are made up but valid."""
    yield World.new(hub, tmp_path)
    hub.clear_faults()
