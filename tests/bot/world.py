"""What the tests of the bot act on: a repo on the local Hub, and the bot's job with a fabricated exporter.

The folder that :class:`PublishingJob` publishes is no real export, but its manifest is valid and its bytes depend on
the source and the options as a real one's would. Tests of the export itself are in ``tests/exporter`` and
``tests/e2e``.
"""

import hashlib
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelexport.contract import (
    FileEntry,
    Graph,
    Manifest,
    ModuleNode,
    OptimumCheck,
    Options,
    ParityResult,
    Source,
    Tensor,
    WeightFile,
)
from modelexport_bot.credentials import Token
from modelexport_bot.job import Job
from modelexport_bot.resolve import Plan
from modelexport_bot.result import Result
from modelexport_bot.settings import Patience, Settings
from tests.hub.client import LocalHub

HASTY = Patience(attempts=4, first_wait=0.002, longest_wait=0.01, total=8, connect=2, read=0.5)
"""The bot's patience, at the pace of tests."""

CONFIG = b'{"architectures": ["BertModel"], "model_type": "bert"}\n'
_names = (f"model-{number}-{uuid.uuid4().hex[:6]}" for number in itertools.count(1))


def weights(seed: str) -> bytes:
    """Bytes that the Hub keeps in LFS."""
    return b"\x00" + hashlib.sha256(seed.encode()).digest() * 300


def manifest(plan: Plan, files: dict[str, bytes]) -> Manifest:
    """A valid manifest for a fabricated folder."""
    tensor = Tensor(name="input_ids", dtype="int64", shape=("batch", "sequence"))
    modules = tuple(
        ModuleNode(path=path, type=kind, nodes=nodes)
        for path, kind, nodes in [
            ("", "BertModel", 2),
            ("embeddings", "BertEmbeddings", 3),
            *((f"encoder.layer.{n}.attention", "BertAttention", 5) for n in range(3)),
        ]
    )
    graph = Graph(
        file="model.onnx", inputs=(tensor,), outputs=(tensor,), nodes=20, traced=18, inferred=2, modules=modules
    )
    parity = ParityResult(
        graph="model.onnx",
        output="last_hidden_state",
        case="batch 2, odd length",
        shapes={"input_ids": (2, 7)},
        max_abs=3e-6,
        max_rel=1e-5,
        tolerance=1e-4,
        passed=True,
    )
    sources = [file for file in plan.snapshot if file.path.endswith(".safetensors")]
    return Manifest(
        source=Source(
            repo=plan.repo,
            sha=plan.sha,
            weights=tuple(WeightFile(path=f.path, size=f.size, sha256=f.sha256 or "0" * 64) for f in sources),
        ),
        options=plan.options,
        options_digest=plan.options.digest(),
        task=plan.options.task or "feature-extraction",
        library="transformers",
        model_type="bert",
        architecture="BertModel",
        versions={"modelexport": "1.0.0", "torch": "2.13.0+cpu"},
        opset=plan.options.opset or 18,
        ir_version=10,
        dtype="float32",
        graphs=(graph,),
        parity=(parity,),
        optimum=OptimumCheck(model_class="ORTModelForFeatureExtraction", files=("model.onnx",), max_abs=3e-6),
        files=tuple(
            FileEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for path, content in sorted(files.items())
        ),
    )


def fabricate(plan: Plan, snapshot: Path, folder: Path) -> Path:
    """A folder as the exporter leaves it: a function of source and options."""
    seed = (snapshot / "model.safetensors").read_bytes() + plan.options.model_dump_json().encode()
    files = {
        "model.onnx": b"\x08\x0a" + hashlib.sha256(seed).digest() * 200,
        "config.json": (snapshot / "config.json").read_bytes(),
        "tokenizer_config.json": b"{}\n",
    }
    if plan.options.dtype == "source":
        files["generation_config.json"] = b'{"temperature": 0.5}\n'
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "modelexport.json").write_text(manifest(plan, files).to_json())
    return folder


@dataclass
class PublishingJob(Job):
    """The real job but for the export. ``before_publishing`` is what others do in the meantime."""

    before_publishing: Callable[[], object] = lambda: None
    exports: int = 0

    def warm_up(self) -> None:
        """There is no exporter."""

    def export(self, plan: Plan, snapshot: Path, folder: Path) -> Path:
        self.exports += 1
        fabricate(plan, snapshot, folder)
        once, self.before_publishing = self.before_publishing, lambda: None
        once()
        return folder


@dataclass
class World:
    """One repo, its owner, and the bot."""

    hub: LocalHub
    repo: str
    settings: Settings
    owner: str
    bot: str
    last_job: PublishingJob = field(init=False, repr=False)

    @classmethod
    def new(cls, hub: LocalHub, directory: Path) -> "World":
        owner, bot = "alice", "export-bot"
        hub.create_user(owner)
        token = hub.create_user(bot)
        repo = f"{owner}/{next(_names)}"
        hub.seed_repo(repo, {"config.json": CONFIG, "model.safetensors": weights("first"), "README.md": "# A model\n"})
        settings = Settings(endpoint=hub.url, token=Token(token), patience=HASTY, cache=directory / "cache")
        return cls(hub, repo, settings, owner, bot)

    # what the bot does

    def run(self, before_publishing: Callable[[], object] = lambda: None, **changes: Any) -> Result:
        """One run of the bot, with changed settings."""
        self.last_job = PublishingJob(replace(self.settings, **changes), before_publishing=before_publishing)
        return self.last_job.run(self.repo)

    def opened(self) -> int:
        """The number of the bot's pull request, made by a run."""
        result = self.run()
        assert result.outcome == "created"
        assert result.pull_request is not None
        return result.pull_request

    # what people do

    def push_weights(self, seed: str) -> str:
        return self.hub.push(self.repo, {"model.safetensors": weights(seed)}, message=f"New weights: {seed}")

    def act(self, user: str, num: int, action: str, body: dict[str, Any] | None = None) -> None:
        """What a person does on the site: comment, status, merge, title."""
        import json
        import urllib.request

        request = urllib.request.Request(
            f"{self.hub.url}/api/models/{self.repo}/discussions/{num}/{action}",
            data=json.dumps(body or {}).encode(),
            headers={"Authorization": f"Bearer {self.hub.create_token(user)}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()

    def close(self, num: int) -> None:
        self.act(self.owner, num, "status", {"status": "closed"})

    def merge(self, num: int) -> None:
        self.act(self.owner, num, "merge")

    def comment(self, num: int, text: str, user: str | None = None) -> None:
        self.act(user or self.owner, num, "comment", {"comment": text})

    # what the Hub holds

    def pull_requests(self) -> list[dict[str, Any]]:
        return list(self.hub.pull_requests(self.repo))

    def pull_request(self, num: int) -> dict[str, Any]:
        return next(found for found in self.pull_requests() if found["num"] == num)

    def texts(self, num: int) -> list[str]:
        """Body and comments."""
        events = self.pull_request(num)["events"]
        return [event["data"]["latest"]["raw"] for event in events if event["type"] == "comment"]

    def folder(self, revision: str) -> dict[str, bytes]:
        """The files in ``onnx/`` at a revision."""
        files = self.hub.files(self.repo, revision)
        return {path: content for path, content in files.items() if path.startswith("onnx/")}

    def manifest_at(self, revision: str) -> Manifest:
        return Manifest.from_json(self.folder(revision)["onnx/modelexport.json"].decode())

    def expected_folder(self, source: str = "main", options: Options | None = None) -> dict[str, bytes]:
        """The hashes that the folder of an export of ``source`` must have, but for the manifest."""
        files = self.hub.files(self.repo, source)
        seed = files["model.safetensors"] + (options or Options()).model_dump_json().encode()
        return {
            "onnx/model.onnx": b"\x08\x0a" + hashlib.sha256(seed).digest() * 200,
            "onnx/config.json": files["config.json"],
        }

    def writes(self) -> list[str]:
        """The requests since the journal was cleared that changed something on the Hub."""
        return [entry["route"] for entry in self.hub.journal() if entry["wrote"]]

    def assert_sound(self) -> None:
        """What must hold at any moment: one open pull request of ours at most, and whatever is open is right."""
        ours = [found for found in self.pull_requests() if found["author"]["name"] == self.bot]
        live = [found for found in ours if found["status"] in ("open", "draft")]
        assert len(live) <= 1, [(found["num"], found["status"]) for found in live]
        for found in ours:
            if found["status"] in ("open", "merged"):
                self.assert_right(found["ref"])

    def assert_right(self, revision: str) -> None:
        """The folder is exactly what its manifest lists, and nothing outside of it has changed."""
        folder = self.folder(revision)
        told = self.manifest_at(revision)
        listed = {f"onnx/{entry.path}": entry.sha256 for entry in told.files}
        actual = {p: hashlib.sha256(c).hexdigest() for p, c in folder.items() if p != "onnx/modelexport.json"}
        assert actual == listed
        assert told.source.sha is not None
        expected = self.expected_folder(told.source.sha, told.options)
        assert expected.items() <= folder.items()
