"""Run what nobody here wrote in a process without network, which it cannot get back.

For models that are Python code in their repo and that the operator allows (``--trust-remote-code``). How:

1. A child is forked, which has one thread only. Sockets that it inherited are replaced by ``/dev/null``.
2. It moves to a user and a network namespace of its own (``unshare(2)``), where no interface is up. Only a process with
   rights over the old network namespace could go back to it, and rights in the new user namespace are none over what
   lies outside; as little can it look into processes outside (``ptrace(2)``). This is so for root, too.
3. It gives up all capabilities, and a filter (``seccomp(2)``) forbids it new Unix sockets, which are files and do not
   end at a network namespace: a container engine or a desktop's message bus could be asked to do what the process may
   not. ``io_uring`` is closed for the same reason, and so are the two calls by which a process types into the terminal
   that it was started from.
4. Whether the network is gone is tried out. If any step fails, nothing is run.

The process and everything it starts inherit all of this. It talks to its parent in lines of JSON, never in pickles,
which could carry code out. When it has ended, what it left running is killed; only where the parent itself is killed, a
process that the code has detached may go on, still without network.

What this is not is a container: files that the user may read stay readable, and those that the user may write can be
changed. What the code has read it can hide in the files that are exported. So it is for code that somebody has looked
at.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

from modelexport import isolation
from modelexport.contract.errors import (
    ERRORS,
    CustomCodeError,
    ExporterCrashedError,
    ModelExportError,
)
from modelexport.contract.events import Failed, Note, Progress, Stage, parse_event
from modelexport.isolation import Emit

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2  # linux/seccomp.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h
_SYSTEM_CALLS = {"x86_64": (0xC000003E, 41, 16, 425), "aarch64": (0xC00000B7, 198, 29, 425)}
"""By machine: its AUDIT_ARCH, and the numbers of ``socket``, ``ioctl`` and ``io_uring_setup``."""

_LONGEST_LINE = 1 << 20  # bytes
_PATIENCE = 10.0  # seconds that the process has to clean up after itself when it is told to end

_confined = False


def require() -> None:
    """Raise CustomCodeError where this process has a network; for the place where code of a repo is about to be run."""
    if not _confined:
        raise CustomCodeError(
            "The code of this model is run in a process without network only, and this process has one. Export it with "
            "the command: modelexport export --trust-remote-code."
        )


def run(function: Callable[[Emit], str], emit: Emit) -> str:
    """Call ``function(emit)`` in a child process without network and return the text that it returns.

    Args:
        function: called in the child; its result must be text, because nothing else crosses.
        emit: is handed the events that it emits.

    Raises:
        CustomCodeError: the network cannot be taken away here; nothing was run.
        ModelExportError: the one that ``function`` raised.
        ExporterCrashedError: it raised anything else, or ended without a word.
    """
    if not sys.platform.startswith("linux"):
        raise _refused(f"only Linux lets a process give up its network for good, and this is {sys.platform}")
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what the child leaves behind becomes ours to end
    others = _children()
    receiver, sender = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _main(sender, parent, function)
    os.close(sender)
    try:
        with os.fdopen(receiver, "rb") as lines:
            result = _listen(lines, emit)
    except ModelExportError:
        _wait(child)
        raise
    except BaseException:
        os.kill(child, signal.SIGTERM)
        _wait(child)
        raise
    else:
        status = _wait(child)
    finally:
        while orphans := _children() - others:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    if result is None:
        raise isolation.died(status)
    return result


def _listen(lines: IO[bytes], emit: Emit) -> str | None:
    """Pass events on until the result comes; None if none does."""
    while line := lines.readline(_LONGEST_LINE):
        text = line.decode("utf-8", "replace")
        event = parse_event(text)
        if isinstance(event, Failed):
            raise ERRORS[event.code](event.message)
        if isinstance(event, Stage | Progress | Note):
            emit(event)
            continue
        with suppress(ValueError, TypeError, KeyError):
            return str(json.loads(text)["result"])
    return None


def _wait(child: int) -> int:
    """The exit code of the child, which is killed if it takes too long to end."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _children() -> set[int]:
    """Our children, those that have ended and were not waited for included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # "pid (comm) state ppid ...": the command may hold spaces and brackets, so from the last one on
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    found.add(int(entry.name))
    return found


def _main(sender: int, parent: int, function: Callable[[Emit], str]) -> NoReturn:
    def say(line: str) -> None:
        os.write(sender, line.encode() + b"\n")

    def failed(error: ModelExportError) -> None:
        say(Failed(code=error.code, message=error.message[: _LONGEST_LINE // 8]).model_dump_json())

    status = 1
    try:
        isolation.die_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends in KeyboardInterrupt, which cleans up
        enter()
        result = function(lambda event: say(event.model_dump_json()))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        say(json.dumps({"result": result}))
        status = 0
    except ModelExportError as error:
        failed(error)
    except KeyboardInterrupt:
        pass
    except BaseException as error:  # noqa: BLE001  told to the parent, every one
        message = f"modelexport failed in a way it does not know: {type(error).__name__}: {error}\n"
        failed(ExporterCrashedError(message + traceback.format_exc().rstrip()))
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


# --- the steps -------------------------------------------------------------------------------------------------------


def enter() -> None:
    """Take the network from this process, for good. It must have one thread.

    Raises:
        CustomCodeError: it cannot be done here; the message says which step failed.
    """
    global _confined
    libc = ctypes.CDLL(None, use_errno=True)
    _leave_sockets()
    _unshare(libc)
    _drop_capabilities(libc)
    _filter_system_calls(libc)
    _try_the_network()
    _confined = True


def _leave_sockets() -> None:
    """Put ``/dev/null`` where inherited sockets are: a connection that is open needs no network namespace.

    They are not closed, as objects that believe to own those numbers would close whatever gets them next.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.dup2(nothing, number, inheritable=number <= 2)
    os.close(nothing)


def _unshare(libc: ctypes.CDLL) -> None:
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise _refused(f"the system does not allow it (unshare: {os.strerror(ctypes.get_errno())})")
    try:
        Path("/proc/self/setgroups").write_text("deny\n")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1\n")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1\n")
    except OSError as error:
        raise _refused(f"the system does not allow it ({error.filename}: {error.strerror})") from error


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last one there is
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _refused(f"capabilities could not be given up ({os.strerror(ctypes.get_errno())})")


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    """Install the filter, classic BPF over ``struct seccomp_data`` (nr at 0, arch at 4, arguments from 16)."""
    numbers = _SYSTEM_CALLS.get(platform.machine())
    if numbers is None or sys.byteorder != "little":
        raise _refused(f"there is no system call filter for {platform.machine()}")
    arch, socket_call, ioctl, io_uring_setup = numbers
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ, JMP|JGE, RET
    allow, deny = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
    program = [  # (code, jump if true, jump if false, constant)
        (load, 0, 0, 4),
        (equal, 0, 11, arch),  # another calling convention has other numbers
        (load, 0, 0, 0),
        (at_least, 9, 0, 0x40000000),  # x32
        (equal, 8, 0, io_uring_setup),
        (equal, 1, 0, socket_call),
        (equal, 2, 5, ioctl),
        (load, 0, 0, 16),
        (equal, 4, 3, socket.AF_UNIX),
        (load, 0, 0, 24),
        (equal, 2, 0, _TIOCSTI),
        (equal, 1, 0, _TIOCLINUX),
        (end, 0, 0, allow),
        (end, 0, 0, deny),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(program), ctypes.addressof(memory))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_program, 0, 0) != 0:
        raise _refused(f"system calls cannot be filtered ({os.strerror(ctypes.get_errno())})")


def _try_the_network() -> None:
    """Connect to somewhere (TEST-NET-1 of RFC 5737; a datagram socket sends nothing) and to this machine itself."""
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 9)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)),
        (socket.AF_UNIX, socket.SOCK_STREAM, "/nowhere"),
    ):
        with suppress(OSError), socket.socket(family, kind) as one:
            if family == socket.AF_INET:
                one.connect(address)
            raise _refused(f"it was tried, and {address} could still be connected to")


def _refused(why: str) -> CustomCodeError:
    return CustomCodeError(
        f"The model is code of its repo, which is run in a process without network only, and here {why}. Nothing was "
        "run. Export it on a Linux machine that allows unprivileged user namespaces (`unshare -rn true` works there; "
        "containers often forbid it)."
    )
