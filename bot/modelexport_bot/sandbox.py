"""The exporter as a child process: what it may see, how long it may take, how much it may use.

The process is ``modelexport serve-jobs``: it imports its engine, says ``ready``, and forks a child for every job it is
given on a pipe. So it can be started before there is anything to export, and take one job or many.

What it sees: an environment built from nothing by allow-list, a home and a temporary directory that are emptied after
every job and vanish with the process, the snapshot, and the output folder. No token is ever handed to it, and it has no
network to send one to (see :mod:`modelexport_bot.supervisor`). Our own memory and environment are closed to other
processes of the same user while it runs, as ``/proc`` would otherwise show them. What this is not is a container: files
of the user's stay readable, which is why pickles are read by a restricted loader, and a repo's own code is run only for
repos that the operator allows by name. The exporter then cuts the network once more, in a way that the code cannot
undo, and refuses where it cannot (``modelexport.confinement``).

How long: a wall-clock limit for each job, after which the whole process group is killed. The same happens when we are
interrupted, when a job crashes or leaves a process behind, and when we die (:mod:`modelexport_bot.supervisor`). The
next job starts a new one.

How much: resident memory of the whole group, sampled. RLIMIT_AS is no use, as torch reserves far more address space
than it touches, and RLIMIT_DATA counts what is reserved too; the proportional set size is what the machine really loses
and counts memory that the exporter's forks share with it once.
"""

import contextlib
import ctypes
import json
import os
import queue
import shutil
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
from typing import IO, Self

from modelexport.contract import ERRORS, ErrorCode, Event, Failed, Finished, parse_event
from modelexport.contract.errors import ExporterCrashedError, ModelExportError, OutOfMemoryError, TimeLimitError
from modelexport.contract.events import Ready
from modelexport_bot import process_group, scratch, supervisor
from modelexport_bot.credentials import redact

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that the exporter inherits. Nothing else crosses."""

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_SAMPLE_EVERY = 0.25  # seconds between two looks at the group's memory and the clock
_LONGEST_LINE = 1 << 20  # bytes; a longer line is no event
_UNREAD_LINES = 64  # that wait for us to take them; an exporter that writes more has to wait
_SETTLING = 1.0  # seconds that helpers of a job that has ended may take to end as well
_QUIET = 0.05  # seconds without a line after which a job that has ended has no more to say
_BROKEN = (ExporterCrashedError.code, OutOfMemoryError.code, TimeLimitError.code)
"""After these the process is not used again."""


@dataclass(frozen=True)
class Limits:
    """What one export may use.

    Attributes:
        seconds: wall-clock.
        memory: bytes resident in the whole process group; None for no limit of ours.
    """

    seconds: float
    memory: int | None = None


@dataclass(frozen=True)
class _Ended:
    """One of the exporter's two pipes is closed."""


_Said = tuple[str, Event | str] | _Ended
"""An event, or a line of ``stdout`` or ``stderr`` that is none, or the end of one of them."""


class Exporter:
    """One exporter, for any number of jobs, one at a time. A context manager: nothing of it outlives its block.

    Args:
        python: interpreter of the exporter's environment.
        inherited: the environment that :data:`PASSED_ON` is picked from.
    """

    def __init__(self, python: Path, inherited: Mapping[str, str]) -> None:
        self.python = python
        self._inherited = inherited
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Let it import its engine while we do something else. Nothing to do if it runs already."""
        if self._process is not None and not self._process.running:
            self.close()
        if self._process is None:
            self._process = _Process(self.python, self._inherited)

    def close(self) -> None:
        """End it, with all its children and its scratch. The next job starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def export(
        self,
        arguments: Sequence[str],
        *,
        limits: Limits,
        on_event: Callable[[Event], None],
        on_line: Callable[[str], None],
    ) -> Finished:
        """Run ``modelexport export`` with these arguments and ``--events``; returns its ``finished`` event.

        Args:
            arguments: what follows ``modelexport export``.
            limits: see :class:`Limits`; what is left of the imports counts.
            on_event: called with every event as it comes.
            on_line: called with every other line the exporter writes, tokens already cut out.

        Raises:
            ModelExportError: the class that belongs to the code of a ``failed`` event.
            TimeLimitError: the wall-clock limit was reached.
            OutOfMemoryError: the memory limit was reached, or the kernel killed the exporter.
            ExporterCrashedError: it ended in any other way without its last event.
        """
        self.start()
        assert self._process is not None
        reusable = False
        try:
            finished = _Job(self._process, limits, on_event, on_line).run(arguments)
            reusable = self._process.clean()
        except ModelExportError as error:
            reusable = self._process.running and error.code not in _BROKEN and self._process.clean()
            raise
        finally:
            if not reusable:
                self.close()
        return finished


def environment(scratch: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The exporter's whole environment. Its scratch directory is made ready."""
    empty(scratch)
    home, temporary = _homes(scratch)
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


def empty(scratch: Path) -> None:
    """Leave two empty directories in a scratch directory, and nothing else."""
    for entry in scratch.iterdir():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for directory in _homes(scratch):
        directory.mkdir(exist_ok=True)


def _homes(scratch: Path) -> tuple[Path, Path]:
    return scratch / "home", scratch / "tmp"


def _close_our_memory() -> None:
    """Make ``/proc/<us>/environ`` and ``mem`` unreadable to other processes of our user (root's excepted)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _Process:
    """A supervised ``modelexport serve-jobs``, its scratch, and two threads that read what it writes."""

    def __init__(self, python: Path, inherited: Mapping[str, str]) -> None:
        _close_our_memory()
        self.ready = False
        self.said: queue.Queue[_Said] = queue.Queue(_UNREAD_LINES)
        self._owned = contextlib.ExitStack()
        self._scratch = self._owned.enter_context(scratch.directory(Path(tempfile.gettempdir()), "modelexport-bot-"))
        self._at_rest = 0  # processes in the group while it waits for a job
        self._killed = False
        jobs, self._jobs = os.pipe()
        try:
            self._process = subprocess.Popen(
                supervisor.command([python, "-I", "-m", "modelexport", "serve-jobs"], offline=True, stdin=jobs),
                cwd=self._scratch,
                env=environment(self._scratch, inherited),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[jobs],
                start_new_session=True,
            )
        except BaseException:
            os.close(self._jobs)
            self._owned.close()
            raise
        finally:
            os.close(jobs)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for name, pipe in {"stdout": self._process.stdout, "stderr": self._process.stderr}.items():
            threading.Thread(target=self._read, args=(name, pipe), daemon=True).start()
        self._open = 2

    @property
    def running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    @property
    def status(self) -> int:
        """Its exit status, once it is gone."""
        return self._process.wait()

    @property
    def memory(self) -> int:
        """Bytes resident, in all its processes."""
        return process_group.memory(self._process.pid)

    def send(self, arguments: Sequence[str]) -> None:
        """Hand it a job; it must be ready."""
        self.ready = False
        self._at_rest = len(process_group.members(self._process.pid))
        with contextlib.suppress(BrokenPipeError):  # it is gone; whoever waits for its answer will see
            os.write(self._jobs, json.dumps({"arguments": list(arguments)}).encode() + b"\n")

    def next(self, timeout: float) -> _Said | None:
        """What it says next; None if it says nothing for so long."""
        try:
            said = self.said.get(timeout=timeout)
        except queue.Empty:
            return None
        self._open -= isinstance(said, _Ended)
        return said

    def clean(self) -> bool:
        """Make it fit for the next job: an empty scratch. False if the last one has left a process behind."""
        deadline = time.monotonic() + _SETTLING
        while len(process_group.members(self._process.pid)) > self._at_rest:
            if time.monotonic() > deadline:
                return False
            time.sleep(_QUIET)
        empty(self._scratch)
        return True

    def kill(self) -> list[_Said]:
        """End the whole group; returns what it had said and nobody has heard."""
        if not self._killed:  # once: the number of a group that is gone may be given to another
            self._killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        unheard: list[_Said] = []
        while self._open and (said := self.next(10)) is not None:
            unheard.append(said)
        return unheard

    def end(self) -> None:
        """Whatever happened: nothing of the group and its scratch outlives this call."""
        self.kill()
        if self._jobs >= 0:
            os.close(self._jobs)
            self._jobs = -1
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._owned.close()

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        for line in Lines(pipe):
            event = parse_event(line) if name == "stdout" else None
            self.said.put((name, redact(line) if event is None else event))
        self.said.put(_Ended())


class _Job:
    """One job: passes on what the exporter says, and watches the clock and its memory."""

    def __init__(
        self,
        process: _Process,
        limits: Limits,
        on_event: Callable[[Event], None],
        on_line: Callable[[str], None],
    ) -> None:
        self._process = process
        self._limits = limits
        self._on_event = on_event
        self._on_line = on_line
        self._started = time.monotonic()
        self._last: Finished | Failed | None = None
        self._tail: deque[str] = deque(maxlen=20)

    def run(self, arguments: Sequence[str]) -> Finished:
        if self._until_ready():
            self._process.send(arguments)
            if self._until_ready():
                for _ in range(_UNREAD_LINES):  # the other pipe may lag behind
                    if (said := self._process.next(_QUIET)) is None:
                        break
                    self._hear(said)
                return self._verdict(None)
        for said in self._process.kill():
            self._hear(said)
        return self._verdict(self._process.status)

    def _until_ready(self) -> bool:
        """Wait until it takes a job, which is also how it says that the last one is over. False if it ended."""
        looked = 0.0
        while not self._process.ready:
            if (said := self._process.next(_SAMPLE_EVERY)) is not None:
                self._hear(said)
            if isinstance(said, _Ended) or time.monotonic() - looked > _SAMPLE_EVERY:
                looked = time.monotonic()
                self._must_be_within_limits()
                if not self._process.running:
                    return False
        return True

    def _hear(self, said: _Said) -> None:
        match said:
            case (_, Ready()):
                self._process.ready = True
            case (_, str(line)):
                if said[0] == "stderr":
                    self._tail.append(line)
                self._on_line(line)
            case (_, event):
                if isinstance(event, Finished | Failed):
                    self._last = event
                self._on_event(event)
            case _Ended():
                pass

    def _must_be_within_limits(self) -> None:
        if time.monotonic() - self._started > self._limits.seconds:
            raise TimeLimitError(
                f"The export did not finish within {self._limits.seconds:g} seconds and was stopped. A larger "
                "model needs longer: raise --timeout."
            )
        if self._limits.memory is not None and (used := self._process.memory) > self._limits.memory:
            raise OutOfMemoryError(
                f"The export used {_gigabytes(used)} of memory, more than the limit of "
                f"{_gigabytes(self._limits.memory)}, and was stopped. Raise --max-memory, or run it on a "
                "larger machine."
            )

    def _verdict(self, status: int | None) -> Finished:
        """What came of it. ``status``: of the process, if it has ended."""
        said = "\n".join(self._tail) or "(nothing on stderr)"
        match self._last:
            case Failed(code=ErrorCode.EXPORTER_CRASHED, message=message):
                raise ExporterCrashedError(f"{redact(message)} Its last lines:\n{said}")
            case Failed(code=code, message=message):
                raise ERRORS[code](redact(message))
            case Finished() if not status:
                return self._last
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


def _how(status: int | None) -> str:
    if status is None:
        return "its process went away"
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
