"""The command line as a process: what it prints where, how it exits, what it loads, what it tells a workflow."""

import json
import os
import re
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.bot.world import World

BOT = Path(sys.executable).with_name("modelexport-bot")
ROOT = Path(__file__).parents[2]
HEAVY = ("huggingface_hub", "httpx2", "pydantic", "torch", "fastapi", "dbos", "github", "yaml")


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": os.environ["PATH"], "HOME": os.environ["HF_HOME"], "NO_PROXY": "127.0.0.1,localhost"}
    return subprocess.run(
        [BOT, *arguments], env=base | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def exporter(tmp_path: Path) -> Path:
    """An exporter that writes a fabricated folder: the command line and the process around it are what is tested."""
    script = tmp_path / "exporter.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        if sys.argv[1:3] == ["-I", "-c"]:
            print("1.0.0"); sys.exit()
        sys.path.insert(0, {str(ROOT)!r})
        import hashlib
        import json
        from pathlib import Path
        from modelexport.contract import Options
        from modelexport_bot.hub import HubFile
        from modelexport_bot.resolve import Plan
        from tests.bot import world
        print('{{"event": "ready"}}', flush=True)
        arguments = json.loads(sys.stdin.readline())["arguments"]
        given = dict(zip(arguments[3::2], arguments[4::2]))
        source, out = Path(arguments[0]), Path(arguments[1])
        weights = (source / "model.safetensors").read_bytes()
        files = (HubFile("model.safetensors", len(weights), "", hashlib.sha256(weights).hexdigest()),)
        print('{{"event": "stage", "stage": "load"}}', flush=True)
        plan = Plan(given["--source-repo"], given["--source-sha"], files, Options(task=given.get("--task")), None, None)
        world.fabricate(plan, source, out)
        print('{{"event": "finished", "output": "out", "manifest": "modelexport.json"}}', flush=True)
        """)
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


@pytest.fixture
def environment(world: World, exporter: Path, tmp_path: Path) -> dict[str, str]:
    assert world.settings.token is not None
    return {
        "HF_ENDPOINT": world.hub.url,
        "HF_TOKEN": world.settings.token.reveal(),
        "HF_HOME": str(tmp_path / "hf"),
        "MODELEXPORT_CACHE": str(tmp_path / "cache"),
        "MODELEXPORT_EXPORTER_PYTHON": str(exporter),
    }


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from modelexport_bot.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


@pytest.mark.parametrize("command", [[], ["run"], ["setup"], ["status"], ["sweep"], ["reply"], ["serve"]])
def test_help_teaches(command: list[str]) -> None:
    done = _run(*command, "--help", COLUMNS="120")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    flags = [line for line in done.stdout.splitlines() if "<bool>" in line and "--help" not in line]
    assert not flags  # they take no value


def test_help_is_wrapped_for_the_terminal_and_not_as_in_the_source() -> None:
    said = _run("setup", "--help", COLUMNS="1000").stdout
    assert "A second checkout finds it again. The console script modelexport lies beside the interpreter." in said


def test_run_creates_then_says_unchanged(world: World, environment: dict[str, str]) -> None:
    first = _run("run", world.repo, **environment)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("created: ")
    assert "onnx/model.onnx" in first.stdout
    second = _run("run", world.repo, "--json", **environment)
    (line,) = second.stdout.splitlines()
    assert json.loads(line)["outcome"] == "unchanged"
    world.assert_sound()


def test_no_token_appears_anywhere(world: World, environment: dict[str, str], tmp_path: Path) -> None:
    done = _run("run", world.repo, "--verbose", "--output", str(tmp_path / "kept"), **environment)
    token = environment["HF_TOKEN"]
    assert token not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


def test_output_keeps_the_folder_and_is_never_overwritten(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    done = _run("run", world.repo, "--dry-run", "--output", str(kept), **environment)
    assert done.returncode == 0, done.stderr
    assert (kept / "model.onnx").exists()
    assert "### Files" in done.stdout
    again = _run("run", world.repo, "--dry-run", "--output", str(kept), **environment)
    assert (again.returncode, "output_exists" in again.stderr) == (3, True)
    assert world.pull_requests() == []


def test_an_error_has_its_code_its_status_and_no_traceback(environment: dict[str, str]) -> None:
    done = _run("run", "alice/not-there", "--json", **environment)
    assert done.returncode == 50
    assert json.loads(done.stdout)["code"] == "repo_not_found"
    assert "Error (repo_not_found): alice/not-there" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in _run("run", "alice/not-there", "--verbose", **environment).stderr


def test_status_and_sweep_and_reply(world: World, environment: dict[str, str]) -> None:
    assert _run("status", world.repo, **environment).stdout.startswith("would be created")
    assert _run("run", world.repo, **environment).returncode == 0
    world.comment(1, "@modelexport-bot help")
    assert _run("reply", world.repo, "1", **environment).stdout.strip() == "answered: help"
    rows = json.loads(_run("sweep", world.owner, "--limit", "1", "--dry-run", "--json", **environment).stdout)
    assert [(row["repo"], row["outcome"], row["pull_request"]) for row in rows] == [(world.repo, "unchanged", 1)]
    assert rows[0]["url"].endswith("/discussions/1")


def test_the_table_of_a_sweep_says_what_would_be_and_cuts_no_name(world: World, environment: dict[str, str]) -> None:
    owner = f"owner-{world.repo.rpartition('-')[2]}"
    world.hub.create_user(owner)
    name = "a-model-" + "with-a-name-that-goes-on-" * 2 + "and-ends"
    world.hub.seed_repo(f"{owner}/{name}", {"README.md": "# Nothing yet"})
    done = _run("sweep", owner, "--dry-run", COLUMNS="80", **environment)
    assert done.returncode == 0, done.stderr
    assert "would be" in done.stdout
    assert "…" not in done.stdout
    cells = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert "".join(cells) == f"{owner}/{name}"


def test_a_sweep_of_nobody_says_so(environment: dict[str, str]) -> None:
    done = _run("sweep", "nobody-at-all", "--dry-run", **environment)
    assert (done.returncode, done.stdout) == (
        0,
        "The Hub shows no models of nobody-at-all. Check the name, and that the token's account may see them.\n",
    )


def test_ctrl_c_ends_with_its_status_and_leaves_a_draft_at_most(
    world: World, environment: dict[str, str], exporter: Path
) -> None:
    import signal
    import time

    slow = exporter.read_text().replace("exec ", 'case "$2" in -c) ;; *) sleep 30;; esac\nexec ')
    exporter.write_text(slow)
    base = {"PATH": os.environ["PATH"], "HOME": os.environ["HF_HOME"], "NO_PROXY": "127.0.0.1,localhost"}
    process = subprocess.Popen(
        [BOT, "run", world.repo], env=base | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("export"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "cancelled" in stderr
    assert [found["status"] for found in world.pull_requests()] in ([], ["draft"])
    assert list((Path(environment["MODELEXPORT_CACHE"]) / "jobs").glob("*/")) == []


# --- in a workflow ---------------------------------------------------------------------------------------------------


@pytest.fixture
def workflow(tmp_path: Path) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }


def _outputs(workflow: dict[str, str]) -> dict[str, str]:
    text = Path(workflow["GITHUB_OUTPUT"]).read_text()
    return {m[1]: m[3] for m in re.finditer(r"^([\w-]+)<<(\S+)\n(.*?)\n\2$", text, re.MULTILINE | re.DOTALL)}


def test_a_workflow_gets_outputs_and_a_summary(
    world: World, environment: dict[str, str], workflow: dict[str, str]
) -> None:
    inputs = {"INPUT_REPO": world.repo, "INPUT_TASK": "fill-mask", "INPUT_OPSET": "", "INPUT_DRY_RUN": "false"}
    done = _run("run", **environment, **workflow, **inputs)
    assert done.returncode == 0, done.stderr
    outputs = _outputs(workflow)
    assert (outputs["outcome"], outputs["pull-request-number"]) == ("created", "1")
    assert json.loads(outputs["result"])["pull_request"] == 1
    assert "created" in Path(workflow["GITHUB_STEP_SUMMARY"]).read_text()
    assert world.manifest_at("refs/pr/1").task == "fill-mask"


def test_a_workflow_gets_an_annotation_for_a_failure(environment: dict[str, str], workflow: dict[str, str]) -> None:
    done = _run("run", **environment, **workflow, INPUT_REPO="alice/not-there")
    assert done.returncode == 50
    assert "::error title=repo_not_found::alice/not-there" in done.stdout
    assert _outputs(workflow)["error-code"] == "repo_not_found"
    done = _run("run", "--json", **environment, **workflow, INPUT_REPO="alice/not-there")
    assert json.loads(done.stdout)["code"] == "repo_not_found"


def test_the_action_passes_every_input_and_output_on() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = {step.get("id"): step for step in action["runs"]["steps"]}
    passed = set(re.findall(r"inputs\.([\w-]+)", json.dumps(steps["run"]["env"])))
    assert passed == set(action["inputs"])
    known = (ROOT / "bot/modelexport_bot/cli.py").read_text()
    for name in action["inputs"]:
        variable = name.upper().replace("-", "_")
        assert f'_env("{variable}")' in known or f"INPUT_{variable}" in known
    set_by_us = (ROOT / "bot/modelexport_bot/github/actions.py").read_text()
    assert all(f'"{name}"' in set_by_us for name in action["outputs"])
    assert "inputs." not in "".join(step.get("run", "") for step in action["runs"]["steps"])  # no injection
