"""The output folder: complete or absent.

Everything is written to a sibling and renamed at the end, so that an interrupted or failed export leaves nothing.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelexport.contract.errors import OutputExistsError, OutputUnwritableError


@contextmanager
def staged(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to, which becomes ``out`` when the block ends without an exception.

    Args:
        out: must not exist, or be an empty folder, unless ``overwrite``.

    Raises:
        OutputExistsError: it does; nothing was touched.
        OutputUnwritableError: nothing can be written there.
    """
    out = Path(os.path.realpath(out))  # a link to a folder: it is the folder that is filled
    _require_free(out, overwrite)
    staging = _staging(out)
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        _replace(staging, out, overwrite)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _staging(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.{os.getpid()}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise OutputUnwritableError(
            f"{out} cannot be written: {error.strerror} ({error.filename}). Choose a folder that you may write to."
        ) from error


def _require_free(out: Path, overwrite: bool) -> None:
    if overwrite and out.is_dir():
        return
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        hint = "Choose another folder, or pass --overwrite to replace it." if out.is_dir() else "It is not a folder."
        raise OutputExistsError(f"{out} exists. {hint}")


def _replace(staging: Path, out: Path, overwrite: bool) -> None:
    _require_free(out, overwrite)  # somebody may have been faster
    if not out.is_dir() or not any(out.iterdir()):
        staging.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.{os.getpid()}.", suffix=".partial", dir=out.parent))
    out.rename(aside / out.name)
    try:
        staging.rename(out)
    except BaseException:
        (aside / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed export of the same folder left: siblings whose process is gone."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"(\d+)\..*\.partial")
    for sibling in out.parent.iterdir():
        match = pattern.fullmatch(sibling.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(sibling, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
