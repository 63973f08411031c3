"""One local Hub for all tests here, and fresh users and repositories for each of them."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import close_session

from .client import LocalHub

SERIAL = itertools.count(1)
CONFIG = b'{"architectures": ["BertForMaskedLM"], "model_type": "bert"}'
CARD = b"---\nlicense: mit\ntags:\n- tiny\nlanguage: en\n---\n# A model\n"
WEIGHTS = bytes(range(256)) * 40


@dataclass
class World:
    """A model `repo` of `owner`, and `bot`, a stranger with a write token; both as clients and by name."""

    hub: LocalHub
    repo: str
    owner: str
    bot: str
    owner_token: str
    bot_token: str

    @property
    def owner_api(self) -> HfApi:
        return HfApi(endpoint=self.hub.url, token=self.owner_token)

    @property
    def bot_api(self) -> HfApi:
        return HfApi(endpoint=self.hub.url, token=self.bot_token)

    @property
    def anonymous(self) -> HfApi:
        return HfApi(endpoint=self.hub.url, token=False)

    def api(self, token: str) -> HfApi:
        return HfApi(endpoint=self.hub.url, token=token)

    def user(self, kind: str) -> str:
        """A user name that no other test has."""
        return f"{kind}-{next(SERIAL)}"

    def pull_request(self, path: str = "onnx/config.json", content: bytes = b"{}") -> int:
        """An open pull request of the bot. Returns its number."""
        commit = self.bot_api.create_commit(
            self.repo, [CommitOperationAdd(path, content)], commit_message="Add ONNX", create_pr=True
        )
        assert commit.pr_num is not None
        return commit.pr_num


@pytest.fixture(scope="session")
def started_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub, pytest.MonkeyPatch.context() as patch:
        # Read from the environment when huggingface_hub was imported, long before there was a Hub.
        template = "{endpoint}/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        patch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + template.removeprefix("{endpoint}"),
        )
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        close_session()
        yield hub
        close_session()


@pytest.fixture
def hub(started_hub: LocalHub) -> Iterator[LocalHub]:
    defaults = started_hub.configure()
    started_hub.clear_journal()
    yield started_hub
    started_hub.clear_faults()
    started_hub.configure(**defaults)


@pytest.fixture
def world(hub: LocalHub) -> World:
    number = next(SERIAL)
    owner, bot = f"owner-{number}", f"bot-{number}"
    owner_token, bot_token = hub.create_user(owner), hub.create_user(bot)
    repo = f"{owner}/model"
    hub.seed_repo(repo, {"config.json": CONFIG, "README.md": CARD, "model.safetensors": WEIGHTS})
    hub.clear_journal()
    return World(hub, repo, owner, bot, owner_token, bot_token)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client retries without waiting."""
    clock: Any = SimpleNamespace(sleep=lambda seconds: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
