"""The output folder: complete or absent.

Everything is written to a sibling and renamed at the end, so that an interrupted or failed export leaves nothing, and
what a killed one leaves is removed by the next of the same folder (:mod:`modelexport.temporary`).
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelexport import temporary
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
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(temporary.held(out.parent, *_affixes(out)))
        except OSError as error:
            raise OutputUnwritableError(
                f"{out} cannot be written: {error.strerror} ({error.filename}). Choose a folder that you may write to."
            ) from error
        yield staging
        staging.chmod(0o777 & ~_umask())
        _replace(staging, out, overwrite)


def _affixes(out: Path) -> tuple[str, str]:
    """How the names of the siblings begin and end."""
    return f".{out.name}.", ".partial"


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
    with temporary.held(out.parent, *_affixes(out)) as aside:
        out.rename(aside / out.name)
        try:
            staging.rename(out)
        except BaseException:
            (aside / out.name).rename(out)
            raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
