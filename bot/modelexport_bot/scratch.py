"""Directories that are gone when their work ends, however it ends.

Who is killed cannot clean up; since every directory comes with a file lock that is held as long as it is used, the next
one who needs a directory sees which ones nobody owns any more and removes them.
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def for_job(cache: Path) -> Iterator[Path]:
    """A new, empty directory in the cache.

    Not among temporary files: a snapshot on the file system of the downloads is made of hard links and costs no copy.
    """
    with directory(_jobs(cache)) as own:
        yield own


@contextlib.contextmanager
def directory(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A new, empty directory whose name starts so; only its owner may look into it."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent, prefix)
    own = parent / f"{prefix}{uuid.uuid4().hex[:12]}"
    with FileLock(own.with_suffix(".lock"), thread_local=False):  # who closes it may be another thread
        own.mkdir(mode=0o700)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
            own.with_suffix(".lock").unlink(missing_ok=True)


def remove_abandoned(cache: Path) -> None:
    """Remove what killed jobs have left in a cache; every new job does it first, too."""
    _remove_abandoned(_jobs(cache), "")


def _jobs(cache: Path) -> Path:
    return cache / "jobs"


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for lock_file in parent.glob(f"{prefix}*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(lock_file, timeout=0):
            shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
            lock_file.unlink(missing_ok=True)
