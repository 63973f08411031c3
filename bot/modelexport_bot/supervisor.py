"""Run a command so that it, and whatever it starts, ends when we do.

``command(argv)`` gives the argv of a small supervising process. It leads a process group of its own, starts ``argv`` in
it, and waits. Its stdin is a pipe whose other end only we hold: when we die, however we die, the kernel closes it, and
the supervisor kills the group. (``PR_SET_PDEATHSIG`` would reach one process only, not its children, and Linux only.)
The command's own stdin is another pipe, if it needs one: ``stdin=FD``, an inherited descriptor.

With ``offline`` the command also loses the network where the kernel lets us take it away: a fresh network namespace
on Linux, as root or with unprivileged user namespaces. Where that is refused, the environment variables that tell
libraries to stay offline still hold.

This file is run by path with ``python -I -S``, so it imports the standard library alone.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def command(argv: Sequence[str | os.PathLike[str]], *, offline: bool = False, stdin: int | None = None) -> list[str]:
    """The argv that runs ``argv`` supervised. Start it with ``stdin=PIPE`` and ``start_new_session=True``.

    Args:
        offline: take the network away from it.
        stdin: the descriptor that ``argv`` reads from, to be passed on in ``pass_fds``; None means nothing to read.
    """
    flags = [*(["--offline"] if offline else []), *([f"--stdin={stdin}"] if stdin is not None else [])]
    return [sys.executable, "-I", "-S", __file__, *flags, "--", *(os.fspath(part) for part in argv)]


def _leave_the_network() -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        with contextlib.suppress(OSError):
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1\n")
            Path("/proc/self/setgroups").write_text("deny\n")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1\n")


def _kill_the_group_when_stdin_closes() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.killpg(0, signal.SIGKILL)


def _main(arguments: list[str]) -> None:
    split = arguments.index("--")
    flags = {name: value for name, _, value in (flag.partition("=") for flag in arguments[:split])}
    if "--offline" in flags:
        _leave_the_network()
    stdin = int(flags.get("--stdin", subprocess.DEVNULL))
    child = subprocess.Popen(arguments[split + 1 :], stdin=stdin)
    if stdin >= 0:
        os.close(stdin)
    threading.Thread(target=_kill_the_group_when_stdin_closes, daemon=True).start()
    status = child.wait()
    if status < 0:  # died of a signal: die of the same, so that our parent sees what happened
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    _main(sys.argv[1:])
