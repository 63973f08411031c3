"""Parts of an export run in processes of their own; how these end reaches the parent as it should."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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


def test_a_fork_shares_what_the_process_holds_and_runs_beside_it() -> None:
    weights = np.arange(1000.0)
    with isolation.fork(lambda factor, _: (os.getpid(), float(weights.sum()) * factor), 2) as result:
        weights[:] = 0  # ours, no longer the fork's
        child, total = result(print)
    assert child != os.getpid()
    assert total == 2 * sum(range(1000))


def test_a_fork_that_nobody_waits_for_ends_with_its_block() -> None:
    with pytest.raises(KeyError), isolation.fork(lambda _: time.sleep(60)):
        [child] = multiprocessing.active_children()
        raise KeyError
    assert not child.is_alive()


class _Held:
    """Garbage of the parent's, as an ONNX Runtime session in a cycle is: clearing it elsewhere waits for ever."""

    def __init__(self) -> None:
        self.me = self
        self.owner = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.owner:
            time.sleep(60)


def _collect(_: object) -> int:
    return gc.collect()


def test_a_child_leaves_the_garbage_of_its_parent_alone() -> None:
    _Held()
    begin = time.monotonic()
    isolation.run(_collect, emit=print)
    assert time.monotonic() - begin < 30
