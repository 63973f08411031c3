"""Parts of an export run in processes of their own; how these end reaches the parent as it should."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from modelexport import isolation
from modelexport.contract.errors import ExporterCrashedError, OutOfMemoryError, ParityFailedError
from modelexport.contract.events import Note
from modelexport.isolation import Emit


def _silent(_: object) -> None: ...


def _add(a: int, b: int, emit: Emit) -> tuple[int, int]:
    emit(Note(message="adding"))
    return a + b, os.getpid()


def _fail(emit: Emit) -> None:
    raise ParityFailedError("the numbers are wrong")


def _bug(emit: Emit) -> None:
    raise LookupError("a bug")


def _no_memory(emit: Emit) -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate")


def _killed(emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _full_disk(emit: Emit) -> None:
    raise OSError(28, "No space left on device")


def test_results_and_events_come_back_from_another_process() -> None:
    events: list[object] = []
    total, pid = isolation.run(_add, 2, 3, emit=events.append)
    assert total == 5 and pid != os.getpid()
    assert events == [Note(message="adding")]


def test_a_typed_error_stays_what_it_is() -> None:
    with pytest.raises(ParityFailedError, match="numbers are wrong"):
        isolation.run(_fail, emit=_silent)


def test_an_operating_system_error_keeps_its_number() -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        isolation.run(_full_disk, emit=_silent)
    assert raised.value.errno == 28


def test_a_bug_is_reported_with_its_traceback() -> None:
    with pytest.raises(ExporterCrashedError, match="LookupError: a bug") as raised:
        isolation.run(_bug, emit=_silent)
    assert "in _bug" in raised.value.message


@pytest.mark.parametrize("function", [_killed, _no_memory])
def test_running_out_of_memory_is_said(function: object) -> None:
    with pytest.raises(OutOfMemoryError):
        isolation.run(function, emit=_silent)  # type: ignore[arg-type]


def test_a_crash_names_the_signal() -> None:
    with pytest.raises(ExporterCrashedError, match="SIGSEGV"):
        isolation.run(_segfault, emit=_silent)


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time, os\n"
        "from modelexport import isolation\n"
        "def work(path, emit):\n    pathlib.Path(path).write_text(str(os.getpid())); time.sleep(60)\n"
        "isolation.run(work, sys.argv[1], emit=print)\n"
    )
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script, str(pid_file)])
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.02)
    child = psutil.Process(int(pid_file.read_text()))
    parent.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([child], timeout=5)
    assert gone
