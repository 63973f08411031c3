"""Fetch: a folder with exactly the files the export reads, at exactly one commit, every byte verified.

The client does not compare what it downloads with the hashes that the Hub lists, so it is done here: sha256 for files
in LFS, the git blob id for the others. Wrong bytes are thrown out of the cache and fetched once more.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from modelexport.contract.errors import DownloadCorruptError
from modelexport_bot.hub import Hub, HubFile
from modelexport_bot.progress import Progress

_BLOCK = 1 << 20
_LARGE = 100_000_000  # bytes; smaller ones arrive before a line about them is read


def fetch(hub: Hub, repo: str, sha: str, files: Sequence[HubFile], folder: Path, progress: Progress) -> Path:
    """Fill ``folder`` with the files, as hard links into the client's cache where the file system allows; returns it.

    Not symbolic ones: the exporter reads nothing that lies outside of the model folder.

    Raises:
        DownloadCorruptError: the bytes of a file were wrong, twice.
        GatedError, HubUnavailableError, ...: see :mod:`modelexport_bot.hub`.
    """
    total = sum(file.size for file in files)
    done = 0
    progress.step("fetch", f"{len(files)} files, {total / 1e6:.1f} MB")
    for file in files:
        if file.size > _LARGE:
            progress.status(f"{file.path} ({file.size / 1e9:.2f} GB)")
        _link(verified(hub, repo, sha, file), folder / file.path)
        done += file.size
        progress.advance(done, total, "bytes")
    return folder


def verified(hub: Hub, repo: str, sha: str, file: HubFile) -> Path:
    """One file in the client's cache, its hash compared with what the Hub lists."""
    for again in (False, True):
        path = hub.download(repo, file.path, sha, again=again)
        if matches(path, file):
            return path
    raise DownloadCorruptError(
        f"{file.path} of {repo} at {sha[:7]} arrived twice with other bytes than the Hub lists "
        f"({'sha256 ' + file.sha256 if file.sha256 else 'git blob ' + file.blob_id}). A proxy or the disk may be "
        "damaging downloads; run it again on another connection."
    )


def matches(path: Path, file: HubFile) -> bool:
    """Whether a local file has the bytes that the Hub lists."""
    if path.stat().st_size != file.size:
        return False
    sha256, blob_id = both_hashes(path)
    return sha256 == file.sha256 if file.sha256 else blob_id == file.blob_id


def both_hashes(path: Path) -> tuple[str, str]:
    """sha256 of a file's bytes, and the id git gives to them (sha1 over a header with the size, and the bytes).

    The Hub lists the one for files in LFS and the other for the rest. One read gives both.
    """
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            git.update(block)
    return sha256.hexdigest(), git.hexdigest()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
