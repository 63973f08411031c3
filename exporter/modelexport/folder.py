"""A folder of ONNX files, ours or not, and what is in it."""

from pathlib import Path

from pydantic import ValidationError

from modelexport.contract.errors import FolderInvalidError, SourceNotFoundError
from modelexport.contract.manifest import MANIFEST_NAME, Manifest


def onnx_files(path: Path) -> list[Path]:
    """The ONNX file at ``path``, or those directly in the folder ``path``, sorted.

    Raises:
        SourceNotFoundError: there is nothing at ``path``.
        FolderInvalidError: the folder holds no ONNX file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceNotFoundError(f"{path} does not exist.")
    files = sorted(path.glob("*.onnx"))
    if not files:
        inner = path / "onnx"
        hint = f" Did you mean {inner}?" if inner.is_dir() else " Export a model with `modelexport export SRC DIR`."
        raise FolderInvalidError(f"No ONNX file in {path}.{hint}")
    return files


def manifest(folder: Path) -> Manifest | None:
    """The manifest of ``folder``; None where it has none.

    Raises:
        FolderInvalidError: there is one, but it is damaged or of a later version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise FolderInvalidError(
            f"{path} is not a manifest that this version of modelexport reads ({first}). It was changed by hand or "
            "written by a later version; export again, or update modelexport."
        ) from error
