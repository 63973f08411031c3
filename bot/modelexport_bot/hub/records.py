"""What the Hub tells us, in our own types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Account:
    """Whose token it is."""

    name: str
    read_only: bool = False


@dataclass(frozen=True)
class HubFile:
    """A file of a repo at one commit. ``blob_id`` is its git id; ``sha256`` is known for files kept in LFS only."""

    path: str
    size: int
    blob_id: str
    sha256: str | None

    @property
    def oid(self) -> str:
        """What identifies the content: equal oids, equal bytes."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class RepoAt:
    """A model repo at one commit."""

    id: str
    sha: str
    files: Mapping[str, HubFile]
    card: Mapping[str, Any] = field(default_factory=dict)
    gated: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)
    """How many parameters its safetensors files hold, by dtype (``F32``); empty where the Hub does not say."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the Hub tells of its ``config.json``: ``model_type``, ``auto_map``; empty where it tells nothing."""


@dataclass(frozen=True)
class Comment:
    """A comment in a thread; the first one of a pull request is its body."""

    id: str
    author: str
    text: str
    hidden: bool = False


@dataclass(frozen=True)
class Thread:
    """A discussion or pull request with all that happened in it.

    ``status`` is draft, open, closed or merged; ``pushed_by`` are the authors of the commits on its ref, oldest first;
    ``closed_by`` is who closed it last.
    """

    num: int
    title: str
    status: str
    author: str
    url: str
    comments: tuple[Comment, ...]
    pushed_by: tuple[str, ...]
    closed_by: str | None = None

    @property
    def body(self) -> str:
        """The first comment."""
        return self.comments[0].text if self.comments else ""

    @property
    def ref(self) -> str:
        """Where its commits live, if it is a pull request."""
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class ThreadHeading:
    """What a list of threads shows of each."""

    num: int
    title: str
    status: str


@dataclass(frozen=True)
class Commit:
    """A commit of a branch."""

    sha: str
    title: str
    authors: tuple[str, ...] = ()
