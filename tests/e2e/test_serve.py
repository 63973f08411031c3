"""``modelexport-bot serve`` as a process: a push on the Hub becomes a pull request, whatever happens to the process.

The Hub delivers its webhooks over HTTP, the exporter is the real one, the model a tiny BERT.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

import modelexport_bot
from tests.hub.client import LocalHub

T = TypeVar("T")
SECRET = "a-secret-of-the-webhook"
BOT = "serving-bot"


def eventually(look: Callable[[], T | None], seconds: float = 90) -> T:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@dataclass
class Server:
    """One data directory, and the processes that serve from it one after the other."""

    command: list[str | Path]
    environment: dict[str, str]
    directory: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    _below: list[psutil.Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self, *, command: list[str | Path] | None = None, **environment: str) -> None:
        """Start, on the same port each time, and wait until it listens."""
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*(command or self.command), "serve", "--port", str(self.port), "--data-dir", self.directory / "data"],
                env=self.environment | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], self.log
        line = self.process.stdout.readline()
        assert line, self.log
        self.port = int(json.loads(line)["url"].rpartition(":")[2])

    def end(self, number: signal.Signals, *, everywhere: bool = False) -> int:
        """Send a signal, maybe to all processes below before; returns the exit status once the process is gone."""
        assert self.process is not None
        self._below = psutil.Process(self.process.pid).children(recursive=True)
        for child in self._below if everywhere else ():
            child.send_signal(number)
        time.sleep(0.3 if everywhere else 0)  # long enough for the server to see that its exporter is gone
        self.process.send_signal(number)
        status = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def left_behind(self) -> list[psutil.Process]:
        """What still runs, a moment later, of the processes below the one that was ended."""
        return psutil.wait_procs(self._below, timeout=5)[1]

    def post(self, body: bytes, secret: str | None = SECRET) -> int:
        headers = {"Content-Type": "application/json"} | ({"X-Webhook-Secret": secret} if secret else {})
        request = urllib.request.Request(f"{self.url}/webhooks/hub", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/jobs")["jobs"]
        return found

    def all_done(self, count: int) -> list[dict[str, Any]]:
        """The jobs, newest first, once there are so many and all have ended."""

        def look() -> list[dict[str, Any]] | None:
            found = self.jobs()
            return found if len(found) == count and all(job["finished"] for job in found) else None

        try:
            return eventually(look)
        except AssertionError as error:
            raise AssertionError(f"{self.jobs()}\n{self.log}") from error

    def is_exporting(self) -> None:
        """Wait until the exporter is at work on the model."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        eventually(lambda: re.search(r": (load|trace|project|write) ", self.log))
        assert any("serve-jobs" in child.cmdline() for child in process.children(recursive=True))


@dataclass
class World:
    """A repo of alice's that the server is told about, and the server."""

    hub: LocalHub
    model: Path
    repo: str
    server: Server
    token: str

    def push_model(self) -> str:
        """Push the tiny BERT; returns once the Hub has delivered its webhook."""
        sha = self.hub.push(self.repo, self.model, message="Add the model")
        self.hub.deliveries()
        return sha

    def deliveries(self) -> list[dict[str, Any]]:
        return [found for found in self.hub.deliveries() if found["payload"]["repo"]["name"] == self.repo]

    def assert_one_pull_request(self) -> None:
        (found,) = self.hub.pull_requests(self.repo)
        assert (found["status"], found["author"]["name"]) == ("open", BOT)
        assert len([event for event in found["events"] if event["type"] == "commit"]) == 1
        files = self.hub.files(self.repo, found["ref"])
        manifest = json.loads(files["onnx/modelexport.json"])
        assert manifest["source"]["sha"] == self.hub.commits(self.repo)[0]["sha"]
        listed = {f"onnx/{entry['path']}" for entry in manifest["files"]} | {"onnx/modelexport.json"}
        assert {path for path in files if path.startswith("onnx/")} == listed
        assert "onnx/model.onnx" in listed

    def assert_scratch_is_empty(self) -> None:
        """Nothing of a job is left in the directories of an exporter that waits for the next."""
        (scratch,) = (path for path in (self.server.directory / "data" / "tmp").iterdir() if path.is_dir())
        assert sorted(path.name for path in scratch.rglob("*")) == ["home", "tmp"]

    def assert_no_secret_on_disk(self) -> None:
        for file in self.server.directory.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert self.token.encode() not in content, file
                assert SECRET.encode() not in content, file


@pytest.fixture
def world(
    hub: LocalHub, bot: Path, exporter: Path, tiny_models: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    owner, token = hub.create_user("alice"), hub.create_user(BOT)
    repo = f"alice/{request.node.name.replace('_', '-')[:60]}"
    hub.seed_repo(repo, {"README.md": "# A model\n"})
    environment = hub.environment(tmp_path / "hf", token=token) | {
        "MODELEXPORT_WEBHOOK_SECRET": SECRET,
        "MODELEXPORT_EXPORTER_PYTHON": str(exporter),
    }
    server = Server([bot], environment, tmp_path / "server")
    server.start()
    api = HfApi(endpoint=hub.url, token=owner)
    watched = [{"type": "model", "name": repo}]
    api.create_webhook(url=f"{server.url}/webhooks/hub", watched=watched, domains=["repo", "discussion"], secret=SECRET)
    yield World(hub, tiny_models / "bert", repo, server, token)
    if server.process is not None:
        server.end(signal.SIGKILL)


def test_a_push_becomes_one_pull_request_and_nothing_else_does_anything(world: World) -> None:
    hub, server, repo = world.hub, world.server, world.repo
    sha = world.push_model()
    (delivery,) = world.deliveries()
    assert delivery["status"] == 202
    (job,) = server.all_done(1)
    assert (job["job"], job["state"]) == (f"{repo}@{sha}", "created"), server.log
    world.assert_one_pull_request()
    assert [found["status"] for found in world.deliveries()[1:]] == [200] * (len(world.deliveries()) - 1)

    hub.clear_journal()
    payload = json.dumps(delivery["payload"]).encode()
    hub.replay(delivery["id"])
    assert world.deliveries()[-1]["status"] == 202
    assert server.post(payload, secret="wrong") == server.post(payload, secret=None) == 401
    assert server.post(payload[:-1]) == 400
    assert server.post(b'{"event": 1}') == 422
    assert server.post(payload + b" " * (1 << 20)) == 413
    foreign = HfApi(endpoint=hub.url, token=hub.create_user("mallory"))
    note = CommitOperationAdd("note.txt", b"hello")
    foreign.create_commit(repo, [note], commit_message="A note", create_pr=True)
    assert {found["status"] for found in world.deliveries() if "refs/pr/2" in json.dumps(found["payload"])} == {200}
    assert [job["job"] for job in server.jobs()] == [f"{repo}@{sha}"]
    assert not [entry for entry in hub.journal() if entry["user"] == BOT]

    HfApi(endpoint=hub.url, token=hub.create_token("alice")).merge_pull_request(repo, 1)
    merged, _ = server.all_done(2)
    assert merged["state"] == "unchanged"
    assert not [entry for entry in hub.journal() if entry["user"] == BOT and entry["wrote"]]
    assert server.get("/healthz")["status"] == "ok"
    world.assert_no_secret_on_disk()


def test_one_exporter_serves_one_push_after_the_other(world: World) -> None:
    server = world.server
    assert server.process is not None
    process = psutil.Process(server.process.pid)

    def exporters() -> set[psutil.Process]:
        return {child for child in process.children(recursive=True) if "serve-jobs" in child.cmdline()}

    world.push_model()
    server.all_done(1)
    first = exporters()
    assert len(first) == 2  # it and its supervisor
    config = json.loads((world.model / "config.json").read_text())
    world.hub.push(world.repo, {"config.json": json.dumps(config | {"layer_norm_eps": 1e-6})}, message="Another")
    later, _ = server.all_done(2)
    assert later["state"] == "updated", server.log
    assert exporters() == first
    world.assert_scratch_is_empty()


def test_a_killed_server_ends_its_job_in_one_pull_request_when_it_is_back(world: World) -> None:
    server = world.server
    world.push_model()
    server.is_exporting()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    assert server.left_behind() == []
    assert world.hub.pull_requests(world.repo) == []

    server.start()
    (job,) = server.all_done(1)
    assert job["state"] == "created", server.log
    world.assert_one_pull_request()
    assert list((server.directory / "data" / "jobs").iterdir()) == []
    world.assert_scratch_is_empty()
    world.assert_no_secret_on_disk()


def test_a_stopped_service_leaves_at_once_and_another_version_ends_its_job(world: World, tmp_path: Path) -> None:
    server = world.server
    world.push_model()
    server.is_exporting()
    started = time.monotonic()
    assert server.end(signal.SIGTERM, everywhere=True) == 0  # as systemd does
    assert time.monotonic() - started < 5
    assert server.left_behind() == []
    assert world.hub.pull_requests(world.repo) == []

    server.start(command=[sys.executable, "-m", "modelexport_bot"], PYTHONPATH=os.fspath(_changed_code(tmp_path)))
    assert server.get("/healthz")["version"] == "99.0.0"
    (job,) = server.all_done(1)
    assert job["state"] == "created", server.log
    world.assert_one_pull_request()


def _changed_code(folder: Path) -> Path:
    """The bot's code, as another version: dbos would tell the workflows apart by their source."""
    package = folder / "changed" / "modelexport_bot"
    shutil.copytree(Path(modelexport_bot.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in [
        ("__init__.py", f'"{modelexport_bot.__version__}"', '"99.0.0"'),
        ("server/jobs.py", "job = DBOS.workflow_id", "job: str | None = DBOS.workflow_id"),
    ]:
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new))
    return package.parent
