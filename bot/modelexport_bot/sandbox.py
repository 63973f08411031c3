"""The exporter as a child process: what it may see, how long it may take, how much it may use.

What it sees: an environment built from nothing by allow-list, a home and a temporary directory that vanish with the
run, the snapshot, and the output folder. No token is ever handed to it, and it has no network to send one to (see
:mod:`modelexport_bot.supervisor`). Our own memory and environment are closed to other processes of the same user while
it runs, as ``/proc`` would otherwise show them. What this is not is a container: files of the user's stay readable,
which is why custom code is never run and pickles are read by a restricted loader.

How long: a wall-clock limit, after which its whole process group is killed. The same happens when we are interrupted,
and when we die (:mod:`modelexport_bot.supervisor`).

How much: resident memory of the whole group, sampled. RLIMIT_AS is no use, as torch reserves far more address space
than it touches, and RLIMIT_DATA counts what is reserved too; the proportional set size is what the machine really loses
and counts memory that the exporter's forked check shares with its parent once.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelexport.contract import ERRORS, Event, Failed, Finished, parse_event
from modelexport.contract.errors import ExporterCrashedError, OutOfMemoryError, TimeLimitError
from modelexport_bot import supervisor
from modelexport_bot.credentials import redact

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that the exporter inherits. Nothing else crosses."""

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_SAMPLE_EVERY = 0.25  # seconds between two looks at the group's memory and the clock
_LONGEST_LINE = 1 << 20  # bytes; a longer line is no event


@dataclass(frozen=True)
class Limits:
    """What one export may use.

    Attributes:
        seconds: wall-clock.
        memory: bytes resident in the whole process group; None for no limit of ours.
    """

    seconds: float
    memory: int | None = None


def export(
    python: Path,
    arguments: Sequence[str],
    *,
    limits: Limits,
    on_event: Callable[[Event], None],
    on_line: Callable[[str], None],
    inherited: Mapping[str, str],
) -> Finished:
    """Run ``modelexport export`` with these arguments and ``--events``; returns its ``finished`` event.

    Args:
        python: interpreter of the exporter's environment.
        arguments: what follows ``modelexport export``.
        limits: see :class:`Limits`.
        on_event: called with every event as it comes.
        on_line: called with every other line the exporter writes, tokens already cut out.
        inherited: the environment that :data:`PASSED_ON` is picked from.

    Raises:
        ModelExportError: the class that belongs to the code of a ``failed`` event.
        TimeLimitError: the wall-clock limit was reached.
        OutOfMemoryError: the memory limit was reached, or the kernel killed the exporter.
        ExporterCrashedError: it ended in any other way without its last event.
    """
    _close_our_memory()
    with tempfile.TemporaryDirectory(prefix="modelexport-", ignore_cleanup_errors=True) as scratch:
        argv = supervisor.command([python, "-I", "-m", "modelexport", "export", *arguments, "--events"], offline=True)
        process = subprocess.Popen(
            argv,
            cwd=scratch,
            env=environment(Path(scratch), inherited),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return _Run(process, limits, on_event, on_line).wait()


def environment(scratch: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The exporter's whole environment."""
    home, temporary = scratch / "home", scratch / "tmp"
    home.mkdir()
    temporary.mkdir()
    return {name: inherited[name] for name in PASSED_ON if name in inherited} | {
        "HOME": os.fspath(home),
        "TMPDIR": os.fspath(temporary),
        "TEMP": os.fspath(temporary),
        "TMP": os.fspath(temporary),
        "HF_HOME": os.fspath(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
    }


def _close_our_memory() -> None:
    """Make ``/proc/<us>/environ`` and ``mem`` unreadable to other processes of our user (root's excepted)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _Run:
    """One child: two threads read what it writes, and this one watches the clock and its memory."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits,
        on_event: Callable[[Event], None],
        on_line: Callable[[str], None],
    ) -> None:
        self._process = process
        self._limits = limits
        self._on_event = on_event
        self._on_line = on_line
        self._last: Finished | Failed | None = None
        self._tail: deque[str] = deque(maxlen=20)
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]

    def wait(self) -> Finished:
        started = time.monotonic()
        peak = 0
        try:
            for reader in self._readers:
                reader.start()
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=_SAMPLE_EVERY)
                    break
                if time.monotonic() - started > self._limits.seconds:
                    raise TimeLimitError(
                        f"The export did not finish within {self._limits.seconds:g} seconds and was stopped. A larger "
                        "model needs longer: raise --timeout."
                    )
                if self._limits.memory is not None:
                    peak = max(peak, memory_of_group(self._process.pid))
                    if peak > self._limits.memory:
                        raise OutOfMemoryError(
                            f"The export used {_gigabytes(peak)} of memory, more than the limit of "
                            f"{_gigabytes(self._limits.memory)}, and was stopped. Raise --max-memory, or run it on a "
                            "larger machine."
                        )
        finally:
            self._end()
        return self._verdict()

    def _end(self) -> None:
        """Whatever happened: nothing of the group outlives this call."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            if reader.ident is not None:
                reader.join(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _verdict(self) -> Finished:
        status = self._process.returncode
        match self._last:
            case Failed(code=code, message=message):
                raise ERRORS[code](redact(message))
            case Finished() if status == 0:
                return self._last
        said = "\n".join(self._tail) or "(nothing on stderr)"
        if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise OutOfMemoryError(
                "The exporter was killed by the system, which is how Linux ends the process that uses the most "
                "memory when none is left. Run it on a machine with more memory than the weights need. Its last "
                f"lines:\n{said}"
            )
        raise ExporterCrashedError(
            f"The exporter ended without a result ({_how(status)}). This is a bug in modelexport or in a library "
            f"below it; please report it with these last lines:\n{said}"
        )

    def _read_stdout(self) -> None:
        for line in _lines(self._process.stdout):
            event = parse_event(line)
            if event is None:
                self._on_line(redact(line))
                continue
            if isinstance(event, Finished | Failed):
                self._last = event
            self._on_event(event)

    def _read_stderr(self) -> None:
        for line in _lines(self._process.stderr):
            self._tail.append(redact(line))
            self._on_line(self._tail[-1])


def _lines(pipe: IO[bytes] | None) -> "Lines":
    assert pipe is not None
    return Lines(pipe)


class Lines:
    """The lines of a pipe as text, long ones cut: a child that floods us must not fill our memory."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        with contextlib.suppress(ValueError, OSError):  # closed under our hands
            if line := self._pipe.readline(_LONGEST_LINE):
                return line.decode("utf-8", "replace").rstrip("\n")
        raise StopIteration


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


# --- memory of a process group ---------------------------------------------------------------------------------------


def memory_of_group(group: int) -> int:
    """Bytes resident in the processes of a group: proportional set sizes on Linux, resident set sizes elsewhere."""
    if sys.platform == "linux":
        return sum(_proportional_set_size(pid) for pid in _members(group))
    listing = subprocess.run(["ps", "-axo", "pgid=,rss="], capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in listing.splitlines())
    return sum(int(rss) * 1024 for pgid, rss in rows if int(pgid) == group)


def _members(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # "pid (comm) state ppid pgrp ...": the command may hold spaces and brackets, so from the last one on
                if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                    members.append(int(entry.name))
    return members


def _proportional_set_size(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
