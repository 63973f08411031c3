"""The console script as people and programs use it: a process with arguments, output and an exit status."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from modelexport import __version__
from modelexport.contract.errors import ERRORS, ErrorCode
from modelexport.contract.events import Failed, Finished, Stage, StageName, parse_event

COMMAND = [sys.executable, "-m", "modelexport"]


def modelexport(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["check", "--help"], ["inspect", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from modelexport.cli import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'optimum', 'onnx', 'onnxruntime', 'numpy', 'huggingface_hub'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_version_is_printed() -> None:
    assert modelexport("--version").stdout.strip() == __version__


def test_events_alone_are_on_stdout_and_the_last_one_is_finished(bert: Path, tmp_path: Path) -> None:
    done = modelexport("export", bert, tmp_path / "out", "--events")
    assert done.returncode == 0, done.stderr
    events = [parse_event(line) for line in done.stdout.splitlines()]
    assert None not in events
    assert [event.stage for event in events if isinstance(event, Stage)] == list(StageName)
    assert events[-1] == Finished(output=str(tmp_path / "out"), manifest="modelexport.json")


def test_a_person_is_told_what_came_out_and_how_to_load_it(bert: Path, tmp_path: Path) -> None:
    done = modelexport("export", bert, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "ORTModelForFeatureExtraction.from_pretrained" in done.stdout
    assert "largest difference" in done.stdout


def test_a_failure_has_its_code_and_exit_status_and_no_traceback(bert: Path, tmp_path: Path) -> None:
    events = modelexport("export", bert, tmp_path / "out", "--events", "--task", "nonsense")
    failed = parse_event(events.stdout.splitlines()[-1])
    assert isinstance(failed, Failed) and failed.code is ErrorCode.TASK_UNKNOWN
    assert events.returncode == ERRORS[ErrorCode.TASK_UNKNOWN].exit_status
    human = modelexport("export", bert, tmp_path / "out", "--task", "nonsense")
    assert human.returncode == events.returncode
    assert human.stderr.count("task_unknown") == 1 and "Traceback" not in human.stderr
    assert "Traceback" in modelexport("export", bert, tmp_path / "out", "--task", "nonsense", "--verbose").stderr


def test_a_source_that_is_nothing_is_named(tmp_path: Path) -> None:
    done = modelexport("export", tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == ERRORS[ErrorCode.SOURCE_NOT_FOUND].exit_status
    assert "nowhere" in done.stderr


def test_without_the_engine_the_message_says_how_to_install_it(tmp_path: Path) -> None:
    """The base install: pydantic, rich and typer alone, as the bot's environment has it."""
    hide = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "from modelexport.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, "export", str(tmp_path), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ERRORS[ErrorCode.ENGINE_MISSING].exit_status
    assert "modelexport[engine]" in done.stderr


@pytest.mark.parametrize(
    ("stage", "number"), [*((stage, signal.SIGINT) for stage in StageName), (StageName.WRITE, signal.SIGTERM)]
)
def test_stopping_it_in_any_stage_leaves_nothing(bert: Path, tmp_path: Path, stage: StageName, number: int) -> None:
    process = subprocess.Popen(
        [*COMMAND, "export", str(bert), str(tmp_path / "out"), "--events"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        event = parse_event(line)
        if isinstance(event, Stage) and event.stage is stage:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    rest = process.stdout.read().splitlines()
    process.wait(timeout=20)
    last = parse_event(rest[-1])
    if isinstance(last, Finished):  # the last stage may be over before the signal arrives
        assert stage in (StageName.BUNDLE, StageName.CHECK)
        shutil.rmtree(tmp_path / "out")
    else:
        assert isinstance(last, Failed) and last.code is ErrorCode.CANCELLED
        assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_killing_it_leaves_no_output_and_the_next_run_cleans_up(bert: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "export", str(bert), str(tmp_path / "out"), "--events"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"write"' in line:
            break
    process.kill()
    process.wait()
    time.sleep(0.1)
    assert not (tmp_path / "out").exists()
    assert modelexport("export", bert, tmp_path / "out").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
