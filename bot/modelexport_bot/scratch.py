"""A directory for one job, on the file system of the cache, gone when the job ends, however it ends.

Beside the cache, because a snapshot there is made of hard links and costs no copy. A job that was killed cannot clean
up; since every job holds a file lock, the next one sees which directories nobody owns any more and removes them.
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def directory(cache: Path) -> Iterator[Path]:
    """A new, empty directory."""
    jobs = cache / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    remove_abandoned(cache)
    own = jobs / uuid.uuid4().hex[:12]
    with FileLock(own.with_suffix(".lock")):
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
            own.with_suffix(".lock").unlink(missing_ok=True)


def remove_abandoned(cache: Path) -> None:
    """Remove what killed jobs have left; every new job does it first, too."""
    for lock_file in (cache / "jobs").glob("*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(lock_file, timeout=0):
            shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
            lock_file.unlink(missing_ok=True)
