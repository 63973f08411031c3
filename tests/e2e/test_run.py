"""``modelexport-bot run`` as a process, with the real exporter and a real trained model, against a Hub over HTTP."""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelexport.contract import ERRORS, ErrorCode, Manifest
from tests.hub.client import LocalHub

REPO = "sentence-transformers/all-MiniLM-L6-v2"


def run(bot: Path, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([bot, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def world(
    hub: LocalHub, bot: Path, exporter: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """MiniLM on the Hub, and what one run of the bot on it did."""
    hub.create_user("sentence-transformers")
    hub.seed_repo(REPO, minilm)
    token = hub.create_user("onnx-bot")
    home = tmp_path_factory.mktemp("world")
    environment = {**hub.environment(home / "hf", token=token), "TMPDIR": str(home)}
    watcher = _Watcher(token)
    done = watcher.run([str(bot), "run", REPO, "--json"], environment)
    return {"done": done, "token": token, "environment": environment, "home": home, "seen": watcher.seen}


class _Watcher:
    """Runs a command and reads command line and environment of every process below it, again and again."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.seen: dict[int, tuple[str, str]] = {}

    def run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        thread = threading.Thread(target=self._watch, args=(process,), daemon=True)
        thread.start()
        out, err = process.communicate()
        thread.join()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            for child in self._children(process.pid):
                try:
                    argv = Path(f"/proc/{child}/cmdline").read_bytes().decode()
                    environ = Path(f"/proc/{child}/environ").read_bytes().decode()
                except OSError:
                    continue
                if argv:
                    self.seen[child] = (argv, environ)
            time.sleep(0.02)

    @staticmethod
    def _children(pid: int) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def test_one_pull_request_holds_exactly_the_folder(hub: LocalHub, world: dict[str, object]) -> None:
    done = world["done"]
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["outcome"] == "created"
    (pull_request,) = hub.pull_requests(REPO)
    assert (pull_request["num"], pull_request["status"]) == (result["pull_request"], "open")
    before, after = hub.files(REPO), hub.files(REPO, pull_request["ref"])
    changed = {path for path in after if before.get(path) != after[path]}
    assert set(before) <= set(after)
    assert changed - {".gitattributes"} == {
        "onnx/config.json", "onnx/model.onnx", "onnx/modelexport.json", "onnx/special_tokens_map.json",
        "onnx/tokenizer.json", "onnx/tokenizer_config.json", "onnx/vocab.txt",
    }  # fmt: skip
    manifest = Manifest.from_json(after["onnx/modelexport.json"].decode())
    for entry in manifest.files:
        content = after[f"onnx/{entry.path}"]
        assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest.source.sha == hub.commits(REPO)[0]["sha"] and manifest.source.repo == REPO
    assert all(parity.passed for parity in manifest.parity)


def test_the_body_can_be_followed_by_a_stranger(hub: LocalHub, world: dict[str, object]) -> None:
    (pull_request,) = hub.pull_requests(REPO)
    body = pull_request["events"][0]["data"]["latest"]["raw"]
    for part in (
        'revision="refs/pr/1"', "ORTModelForFeatureExtraction", "onnx/model.onnx", "<details>", "BertEncoder",
        "tolerance", hub.commits(REPO)[0]["sha"], "Opset 18", "bot", "decline",
    ):  # fmt: skip
        assert part in body, part


def test_the_snippet_of_the_body_runs_as_it_stands(
    hub: LocalHub, exporter: Path, world: dict[str, object], hf_home: Path
) -> None:
    (pull_request,) = hub.pull_requests(REPO)
    body = pull_request["events"][0]["data"]["latest"]["raw"]
    snippet = body.split("```python\n", 1)[1].split("```", 1)[0]
    environment = {**hub.environment(hf_home), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([exporter, "-c", snippet], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "last_hidden_state" in done.stdout


def test_running_it_again_says_unchanged_and_writes_nothing(hub: LocalHub, bot: Path, world: dict[str, object]) -> None:
    environment = world["environment"]
    assert isinstance(environment, dict)
    hub.clear_journal()
    done = run(bot, ["run", REPO, "--json"], environment)
    assert json.loads(done.stdout)["outcome"] == "unchanged"
    assert [entry["path"] for entry in hub.journal() if entry["wrote"]] == []
    assert len(hub.pull_requests(REPO)) == 1


def test_the_token_never_reaches_the_exporter(world: dict[str, object]) -> None:
    token, seen, done = world["token"], world["seen"], world["done"]
    assert isinstance(token, str) and isinstance(seen, dict) and isinstance(done, subprocess.CompletedProcess)
    exporters = [pid for pid, (argv, _) in seen.items() if "\0serve-jobs\0" in argv]
    assert exporters, "the exporter was seen at work"
    for argv, environ in seen.values():
        assert token not in argv and token not in environ
        assert "HF_TOKEN" not in environ
    assert token not in done.stdout and token not in done.stderr


def test_the_token_is_in_no_file_and_on_no_page(hub: LocalHub, world: dict[str, object]) -> None:
    token, home = world["token"], world["home"]
    assert isinstance(token, str) and isinstance(home, Path)
    needle = token.encode()
    for path in home.rglob("*"):
        if path.is_file():
            assert needle not in path.read_bytes(), path
    for path, content in hub.files(REPO, "refs/pr/1").items():
        assert needle not in content, path
    assert token not in json.dumps(hub.pull_requests(REPO))


def test_nothing_is_left_in_the_temporary_folder(world: dict[str, object]) -> None:
    home = world["home"]
    assert isinstance(home, Path)
    assert {path.name for path in home.iterdir()} <= {"hf"}


def test_a_dry_run_shows_everything_and_writes_nothing(
    hub: LocalHub, bot: Path, tiny_models: Path, hf_home: Path, tmp_path: Path
) -> None:
    hub.create_user("acme")
    hub.seed_repo("acme/dry-vit", tiny_models / "vit")
    hub.clear_journal()
    done = run(bot, ["run", "acme/dry-vit", "--dry-run", "--output", str(tmp_path / "kept")], hub.environment(hf_home))
    assert done.returncode == 0, done.stderr
    assert "onnx/model.onnx" in done.stdout and "ORTModelForImageClassification" in done.stdout
    assert [entry["path"] for entry in hub.journal() if entry["wrote"]] == []
    assert (tmp_path / "kept" / "preprocessor_config.json").exists()
    assert Manifest.from_json((tmp_path / "kept" / "modelexport.json").read_text()).task == "image-classification"


def test_a_model_that_writes_text(hub: LocalHub, bot: Path, tiny_models: Path, hf_home: Path) -> None:
    hub.create_user("author")
    hub.seed_repo("author/gpt2", tiny_models / "gpt2")
    done = run(bot, ["run", "author/gpt2", "--json"], hub.environment(hf_home, token=hub.create_user("writer-bot")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "created"
    (pull_request,) = hub.pull_requests("author/gpt2")
    body = pull_request["events"][0]["data"]["latest"]["raw"]
    assert "model.generate(" in body
    assert "- generate, padded batch, with cache, 20 steps" in body


def test_help_loads_nothing_heavy(bot: Path) -> None:
    script = (
        "import sys; sys.argv[1:] = {!r}\n"
        "from modelexport_bot.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {{'torch', 'huggingface_hub', 'fastapi', 'dbos', 'github', 'sqlalchemy', 'numpy'}} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    python = bot.with_name("python")
    for arguments in (["--help"], ["run", "--help"], ["serve", "--help"], ["setup", "--help"]):
        done = subprocess.run([python, "-c", script.format(arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


# --- what a run refuses; each leaves nothing behind, here or on the Hub ----------------------------------------------


@pytest.fixture(scope="module")
def owner(hub: LocalHub) -> str:
    return hub.create_user("owner")


@pytest.fixture
def refused(hub: LocalHub, bot: Path, tmp_path: Path, exporter: Path) -> Iterator[object]:
    """Run on a repo, expect an error code, and find nothing written anywhere."""

    def check(repo: str, code: ErrorCode, *arguments: str, token: str | None = None) -> str:
        environment = {**hub.environment(tmp_path / "hf", token=token), "TMPDIR": str(tmp_path / "tmp")}
        (tmp_path / "tmp").mkdir(exist_ok=True)
        hub.clear_journal()
        done = run(bot, ["run", repo, "--json", *arguments], environment)
        assert done.returncode == ERRORS[code].exit_status, done.stdout + done.stderr
        failure = json.loads(done.stdout)
        assert failure["code"] == code.value
        assert len(failure["message"]) > 40, "what happened, why, and what to do"
        assert "Traceback" not in done.stderr
        assert list((tmp_path / "tmp").iterdir()) == []
        assert [entry["path"] for entry in hub.journal() if entry["wrote"]] == []
        return str(failure["message"])

    return check


def test_an_unknown_repo(refused, owner: str) -> None:  # type: ignore[no-untyped-def]
    assert "owner/nowhere" in refused("owner/nowhere", ErrorCode.REPO_NOT_FOUND, token=owner)


def test_a_private_repo_without_token(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/private", tiny_models / "bert", private=True)
    refused("owner/private", ErrorCode.REPO_NOT_FOUND, "--dry-run")
    assert "token" in refused("owner/private", ErrorCode.FORBIDDEN)


def test_a_gated_repo(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/gated", tiny_models / "bert", gated="manual")
    refused("owner/gated", ErrorCode.GATED, token=hub.create_user("not-let-in"))


def test_a_read_only_token_is_known_before_the_export(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/model", tiny_models / "bert")
    reader = hub.create_user("reader", role="read")
    refused("owner/model", ErrorCode.FORBIDDEN, token=reader)


def test_an_invalid_token(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/public", tiny_models / "bert")
    refused("owner/public", ErrorCode.UNAUTHORIZED, token="hf_" + "x" * 34)


def test_an_empty_repo(hub: LocalHub, refused, owner: str) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/empty", {})
    refused("owner/empty", ErrorCode.REPO_EMPTY, token=owner)


def test_a_repo_without_config(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    weights = (tiny_models / "bert" / "model.safetensors").read_bytes()
    hub.seed_repo("owner/no-config", {"model.safetensors": weights})
    assert "config.json" in refused("owner/no-config", ErrorCode.CONFIG_MISSING, token=owner)


@pytest.mark.parametrize("damage", ["truncated", "bad-header"])
def test_corrupt_weights(hub: LocalHub, refused, owner: str, tiny_models: Path, damage: str) -> None:  # type: ignore[no-untyped-def]
    weights = (tiny_models / "bert" / "model.safetensors").read_bytes()
    broken = weights[: len(weights) // 2] if damage == "truncated" else b"\xff" * 8 + weights[8:]
    files = {path.name: path.read_bytes() for path in (tiny_models / "bert").iterdir() if path.is_file()}
    hub.seed_repo(f"owner/{damage}", {**files, "model.safetensors": broken})
    refused(f"owner/{damage}", ErrorCode.CHECKPOINT_UNREADABLE, token=owner)


def test_a_repo_with_custom_code(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    config = {"model_type": "acme", "auto_map": {"AutoConfig": "c.C", "AutoModel": "m.M"}, "architectures": ["Acme"]}
    weights = (tiny_models / "bert" / "model.safetensors").read_bytes()
    hub.seed_repo(
        "owner/custom", {"config.json": json.dumps(config), "m.py": "1/0", "c.py": "1/0", "model.safetensors": weights}
    )
    refused("owner/custom", ErrorCode.CUSTOM_CODE, token=owner)


def test_a_repo_with_custom_code_that_the_operator_allows(
    hub: LocalHub, bot: Path, exporter: Path, owner: str, tmp_path: Path
) -> None:
    """The whole way: fetched, run without network, exported as it computes, in a pull request that says so."""
    script = "import sys; from pathlib import Path; from tests.exporter import custom_code\n"
    script += "custom_code.save(Path(sys.argv[1]))"
    root = str(Path(__file__).parents[2])
    subprocess.run([exporter, "-c", script, tmp_path / "own"], check=True, env={**os.environ, "PYTHONPATH": root})
    hub.seed_repo("owner/own", tmp_path / "own")
    environment = {**hub.environment(tmp_path / "hf", token=owner), "TMPDIR": str(tmp_path)}
    assert run(bot, ["run", "owner/own"], environment).returncode == ERRORS[ErrorCode.CUSTOM_CODE].exit_status
    (tmp_path / "bot.toml").write_text('trust_remote_code = ["owner/other"]\n')
    told = ["run", "owner/own", "--json", "--config", str(tmp_path / "bot.toml")]
    assert json.loads(run(bot, told, environment).stdout)["code"] == "custom_code"
    (tmp_path / "bot.toml").write_text('trust_remote_code = ["owner/own"]\n')
    done = run(bot, told, environment)
    assert json.loads(done.stdout)["outcome"] == "created", done.stderr
    again = run(bot, ["run", "owner/own", "--json", "--trust-remote-code"], environment)
    assert json.loads(again.stdout)["outcome"] == "unchanged"
    (opened,) = hub.pull_requests("owner/own")
    folder = hub.files("owner/own", opened["ref"])
    assert not [path for path in folder if path.startswith("onnx/") and path.endswith(".py")]
    manifest = Manifest.from_json(folder["onnx/modelexport.json"].decode())
    assert manifest.architecture == "OwnBertModel"
    digest = hashlib.sha256(folder["modeling_own.py"]).hexdigest()
    assert any(f"modeling_own.py (sha256 {digest})" in note for note in manifest.notes)


def test_an_unknown_task(hub: LocalHub, refused, owner: str, tiny_models: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/task", tiny_models / "bert")
    refused("owner/task", ErrorCode.TASK_UNKNOWN, "--task", "nonsense", token=owner)


def test_an_output_folder_that_exists(hub: LocalHub, refused, owner: str, tiny_models: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    hub.seed_repo("owner/output", tiny_models / "bert")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").touch()
    refused("owner/output", ErrorCode.OUTPUT_EXISTS, "--output", str(tmp_path / "kept"), token=owner)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["mine"]


@pytest.mark.parametrize("stage", ["resolve", "fetch", "export", "publish"])
def test_ctrl_c_in_each_step_leaves_nothing_and_a_second_run_completes(
    hub: LocalHub, bot: Path, owner: str, tiny_models: Path, tmp_path: Path, stage: str
) -> None:
    repo = f"owner/stopped-in-{stage}"
    hub.seed_repo(repo, tiny_models / "bert")
    token = hub.create_user("stopping-bot")
    (tmp_path / "tmp").mkdir()
    environment = {**hub.environment(tmp_path / "hf", token=token), "TMPDIR": str(tmp_path / "tmp"), "COLUMNS": "200"}
    process = subprocess.Popen(
        [bot, "run", repo], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(stage):
            break
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert [pr["num"] for pr in hub.pull_requests(repo) if pr["status"] == "open"] == []
    done = run(bot, ["run", repo, "--json"], environment)
    assert json.loads(done.stdout)["outcome"] == "created", done.stdout + done.stderr
    assert [pr["status"] for pr in hub.pull_requests(repo)].count("open") == 1
