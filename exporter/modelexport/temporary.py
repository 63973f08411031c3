"""Folders that do not outlive their work, however the process that made them ends.

A process that is killed cannot clean up. So every folder is locked (``flock`` on the folder itself) by the process that
made it, and by those forked from it; the kernel lets go of the lock with the last of them. A folder whose lock is free
is a leftover, and the next run removes it; one that somebody works in is never touched. systemd-tmpfiles goes by the
same rule (https://systemd.io/TEMPORARY_DIRECTORIES).

Where folders cannot be locked (Windows, some network file systems) no leftover is removed.
"""

import contextlib
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "modelexport-scratch-"


@contextmanager
def folder() -> Iterator[Path]:
    """A new, empty folder in the temporary folder (``TMPDIR``), gone when the block ends."""
    with held(Path(tempfile.gettempdir()), PREFIX) as made:
        yield made


@contextmanager
def held(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """A new, empty folder of such a name; removed when the block ends, if it still has its name then.

    Leftovers of the same names are removed first.

    Raises:
        OSError: nothing can be written to ``parent``.
    """
    _remove_leftovers(parent, prefix, suffix)
    made, lock = _made(parent, prefix, suffix)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _made(parent: Path, prefix: str, suffix: str) -> tuple[Path, int | None]:
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        lock = _lock(made, wait=True)
        if made.exists():
            return made, lock
        if lock is not None:  # before we had it, somebody took our folder for a leftover
            os.close(lock)


def _remove_leftovers(parent: Path, prefix: str, suffix: str) -> None:
    for found in parent.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"):
        if (lock := _lock(found, wait=False)) is not None:
            shutil.rmtree(found, ignore_errors=True)
            os.close(lock)


def _lock(place: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock of a folder; None if somebody else does, or if it cannot be locked."""
    if sys.platform == "win32":
        return None
    import fcntl

    with contextlib.suppress(OSError):  # gone, or not ours
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return None
