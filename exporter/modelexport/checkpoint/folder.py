"""Opening files of a folder that somebody else wrote.

A repo may hold symlinks and its JSON files may name other files, so each name is checked before it is opened:

1. It is a relative path without ``..`` and without a drive, a NUL byte or a backslash.
2. What it resolves to lies inside the folder. One exception: the Hub's cache stores a snapshot as symlinks from
   ``models--org--name/snapshots/<sha>/`` to ``models--org--name/blobs/``, so a snapshot may point anywhere into its own
   ``models--*`` folder (huggingface_hub, "Understand caching").
3. It is a regular file: a FIFO or a device would hang or never end.
"""

import json
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelexport.contract.errors import CheckpointUnreadableError, ConfigInvalidError, ModelExportError

_MAX_JSON_BYTES = 64 << 20
"""Configs are kilobytes, tokenizer.json of the largest vocabularies a few tens of megabytes (not parsed here)."""


class UnsafePathError(CheckpointUnreadableError):
    """A name that leads out of the folder, or to something that is not a file."""

    code = CheckpointUnreadableError.code
    exit_status = CheckpointUnreadableError.exit_status


@dataclass(frozen=True)
class Folder:
    """A model folder; every access goes through here."""

    root: Path

    @property
    def _boundary(self) -> Path:
        """The folder that no file may lie outside of."""
        root = self.root.resolve()
        if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
            return root.parent.parent
        return root

    def names(self) -> frozenset[str]:
        """Names directly in the folder, of files only (symlinks to files included)."""
        return frozenset(entry.name for entry in self.root.iterdir() if entry.is_file())

    def path(self, name: str) -> Path:
        """The path of a file that is named ``name`` by the folder itself or by one of its JSON files.

        Raises:
            UnsafePathError: by the rules above.
            FileNotFoundError: no such file.
        """
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts or any(c in name for c in "\\\0:"):
            raise UnsafePathError(
                f"The checkpoint names the file {name!r}, which is not a plain path inside the model folder. "
                "Files outside of it are never read; correct the name in the file that lists it."
            )
        path = self.root / pure
        try:
            resolved = path.resolve(strict=True)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:
            raise UnsafePathError(f"{name} cannot be opened: {error}. Replace it by a regular file.") from error
        if not resolved.is_relative_to(self._boundary):
            raise UnsafePathError(
                f"{name} is a symbolic link to a place outside of the model folder, which is never read. "
                "Put the file itself into the folder."
            )
        if not stat.S_ISREG(resolved.stat().st_mode):
            raise UnsafePathError(f"{name} is not a regular file. Put the file itself into the folder.")
        return path

    def has(self, name: str) -> bool:
        """Whether something named ``name`` is there, sound or not."""
        path = self.root / name
        return path.is_symlink() or path.exists()

    def json(self, name: str, error: type[ModelExportError] = ConfigInvalidError) -> dict[str, Any]:
        """Parse the JSON object in the file ``name``.

        Raises:
            error: the file is too large, not UTF-8, not JSON, or not an object.
            FileNotFoundError: no such file.
        """
        path = self.path(name)
        size = path.stat().st_size
        if size > _MAX_JSON_BYTES:
            raise error(f"{name} has {size} bytes; no file of this kind is that large. Replace it by a valid one.")
        try:
            value = json.loads(path.read_bytes().decode("utf-8"))
        except (ValueError, RecursionError) as cause:
            raise error(
                f"{name} is not valid JSON ({_brief(cause)}). Correct the file or download it again."
            ) from cause
        if not isinstance(value, dict):
            raise error(f"{name} holds a JSON {type(value).__name__} where an object is expected. Correct the file.")
        return value


def _brief(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
