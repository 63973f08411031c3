"""Git LFS pointers, and the objects that one repository holds: a folder of files named by their sha256."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")
POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
MAX_POINTER = 1024


@dataclass(frozen=True)
class Pointer:
    sha256: str
    size: int

    def encode(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @classmethod
    def decode(cls, content: bytes) -> "Pointer | None":
        """The pointer that a git blob holds, or `None` for any other content."""
        match = POINTER.fullmatch(content) if len(content) <= MAX_POINTER else None
        return cls(match[1].decode(), int(match[2])) if match else None


class LfsObjects:
    """One repository's objects. An object appears under its name only when it is complete and checked."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def size(self, sha256: str) -> int | None:
        """Size in bytes, or `None` when the repository does not have the object."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def temporary(self) -> Path:
        return self.folder / f".incoming-{secrets.token_hex(8)}"

    def adopt(self, temporary: Path, sha256: str) -> None:
        temporary.replace(self.path(sha256))

    def add_bytes(self, content: bytes) -> Pointer:
        pointer = Pointer(hashlib.sha256(content).hexdigest(), len(content))
        if self.size(pointer.sha256) is None:
            temporary = self.temporary()
            temporary.write_bytes(content)
            self.adopt(temporary, pointer.sha256)
        return pointer

    def add_file(self, source: Path) -> Pointer:
        digest, size = hashlib.sha256(), 0
        temporary = self.temporary()
        with source.open("rb") as reader, temporary.open("wb") as writer:
            while block := reader.read(1 << 20):
                digest.update(block)
                writer.write(block)
                size += len(block)
        self.adopt(temporary, digest.hexdigest())
        return Pointer(digest.hexdigest(), size)
