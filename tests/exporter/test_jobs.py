"""The warm exporter: many jobs, one import, and no job can touch another."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelexport.contract.errors import ErrorCode
from modelexport.contract.events import Failed, Finished, Ready, Stage, StageName, parse_event


class Warm:
    """A ``modelexport serve-jobs`` process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelexport", "serve-jobs"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def read(self) -> object:
        assert self.process.stdout is not None
        return parse_event(self.process.stdout.readline())

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        assert isinstance(self.read(), Ready)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def run(self, *arguments: object) -> list[object]:
        self.send(json.dumps({"arguments": [str(argument) for argument in arguments]}))
        events: list[object] = []
        while not events or not isinstance(events[-1], (Finished, Failed)):
            events.append(self.read())
        return events

    def forks(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(timeout=10) == 0


def test_a_job_makes_the_same_bytes_as_a_cold_export(
    warm: Warm, bert: Path, exported_bert: Path, tmp_path: Path
) -> None:
    events = warm.run(bert, tmp_path / "out")
    assert events[-1] == Finished(output=str(tmp_path / "out"), manifest="modelexport.json")
    assert [event.stage for event in events if isinstance(event, Stage)] == list(StageName)
    for path in exported_bert.iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_a_failed_job_does_not_end_the_server(warm: Warm, bert: Path, tmp_path: Path) -> None:
    failed = warm.run(bert, tmp_path / "out", "--task", "nonsense")[-1]
    assert isinstance(failed, Failed) and failed.code is ErrorCode.TASK_UNKNOWN
    assert isinstance(warm.run(bert, tmp_path / "out")[-1], Finished)


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"arguments": "a b"}', '{"arguments": [1, 2]}', "null"])
def test_a_line_that_is_no_job_is_refused(warm: Warm, line: str) -> None:
    warm.send(line)
    failed = warm.read()
    assert isinstance(failed, Failed) and failed.code is ErrorCode.USAGE


@pytest.mark.parametrize("arguments", [["a", "b", "--no-such-option"], ["a"], ["a", "b", "--opset", "many"]])
def test_arguments_that_make_no_sense_are_refused(warm: Warm, arguments: list[str]) -> None:
    failed = warm.run(*arguments)[-1]
    assert isinstance(failed, Failed) and failed.code is ErrorCode.USAGE


def test_a_killed_job_is_reported_and_leaves_no_output(warm: Warm, bert: Path, tmp_path: Path) -> None:
    warm.send(json.dumps({"arguments": [str(bert), str(tmp_path / "out")]}))
    while not (isinstance(event := warm.read(), Stage) and event.stage is StageName.TRACE):
        pass
    job = psutil.Process(warm.process.pid).children()[0]
    below = job.children(recursive=True)
    os.kill(job.pid, signal.SIGKILL)
    while not isinstance(event := warm.read(), (Finished, Failed)):
        pass
    assert isinstance(event, Failed) and event.code is ErrorCode.OUT_OF_MEMORY
    assert not psutil.wait_procs(below, timeout=5)[1]
    assert not (tmp_path / "out").exists()
    assert isinstance(warm.run(bert, tmp_path / "out")[-1], Finished)


def test_nothing_outlives_the_server(bert: Path, tmp_path: Path) -> None:
    server = Warm()
    server.send(json.dumps({"arguments": [str(bert), str(tmp_path / "out")]}))
    while not (isinstance(event := server.read(), Stage) and event.stage is StageName.TRACE):
        pass
    forks = server.forks()
    assert forks
    server.process.kill()
    assert not psutil.wait_procs(forks, timeout=5)[1]
