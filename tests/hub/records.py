"""What the Hub knows besides file contents: users, tokens, repositories, discussions, webhooks, settings.

Everything lives in memory and is written through to one SQLite file, so that a restart keeps it.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

OrgRole = Literal["admin", "write", "contributor", "read"]
TokenRole = Literal["read", "write", "fineGrained"]
Status = Literal["draft", "open", "closed", "merged"]


def new_id() -> str:
    """24 hexadecimal digits, like every id of the Hub."""
    return secrets.token_hex(12)


def iso(seconds: float) -> str:
    """`2024-05-17T09:12:33.000Z`, the only date format the client parses."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass
class User:
    name: str
    fullname: str
    publishers: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return self.name


@dataclass
class Org:
    """`members` maps user names to their role in the organisation."""

    name: str
    members: dict[str, OrgRole] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return self.name


@dataclass
class Token:
    """`permissions` belong to fine-grained tokens, `resource` to those of Trusted Publishers.

    A resource is one repository's key (nothing else private or writable), or `gated-repos` (reads, nothing private).
    """

    value: str
    user: str
    role: TokenRole
    name: str
    permissions: dict[str, Any] = field(default_factory=dict)
    resource: str | None = None
    expires: float | None = None
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return self.value


@dataclass
class Repo:
    """`name` is `namespace/name` (or one word for a canonical model); `let_in` names who may use it while gated."""

    kind: str
    name: str
    private: bool = False
    gated: Literal[False, "auto", "manual"] = False
    disabled: bool = False
    archived: bool = False
    discussions: bool = True
    let_in: list[str] = field(default_factory=list)
    publishers: list[dict[str, Any]] = field(default_factory=list)
    last_num: int = 0
    downloads: int = 0
    likes: int = 0
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def namespace(self) -> str:
        return self.name.split("/")[0] if "/" in self.name else "hub"

    @property
    def web_path(self) -> str:
        return f"/{self.name}" if self.kind == "model" else f"/{self.kind}s/{self.name}"

    @property
    def api_path(self) -> str:
        return f"/api/{self.kind}s/{self.name}"


@dataclass
class Redirect:
    """An old name of a repository."""

    key: str
    target: str


@dataclass
class Discussion:
    """A discussion or pull request; `events` are stored as the API returns them (authors as user names)."""

    repo: str
    num: int
    title: str
    author: str
    is_pull_request: bool
    status: Status
    base: str = "refs/heads/main"
    merge_commit: str | None = None
    merge_base: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return f"{self.repo}#{self.num}"

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Webhook:
    owner: str
    url: str
    watched: list[dict[str, str]]
    domains: list[str]
    secret: str | None = None
    disabled: bool = False
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return self.id


@dataclass
class Settings:
    """What a test may want smaller, shorter or stricter than on the Hub. Times in seconds, sizes in bytes.

    `rate_limits` maps `api` or `resolvers` to `[quota, window]` per user (or per address without a token).
    """

    tree_page: int = 1000
    commits_page: int = 50
    discussions_page: int = 20
    models_page: int = 1000
    multipart_threshold: int = 5 * 1024**3
    multipart_chunk: int = 64 * 1024**2
    upload_url_lifetime: float = 86_400
    download_url_lifetime: float = 3_600
    publisher_token_lifetime: float = 3_600
    rate_limits: dict[str, list[float]] = field(default_factory=dict)
    webhook_order: Literal["natural", "reversed"] = "natural"
    webhook_timeout: float = 10

    @property
    def key(self) -> str:
        return "settings"


Record = User | Org | Token | Repo | Redirect | Discussion | Webhook | Settings
R = TypeVar("R", bound=Record)
KINDS: tuple[type[Any], ...] = (User, Org, Token, Repo, Redirect, Discussion, Webhook, Settings)


class Records:
    """A write-through cache of all records, by class and key."""

    def __init__(self, path: Path):
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA journal_mode=WAL")
        # Survives the death of the process, not of the machine: enough for a test server, and ten times faster.
        self.database.execute("PRAGMA synchronous=OFF")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key))"
        )
        self.tables: dict[type[Any], dict[str, Any]] = {kind: {} for kind in KINDS}
        names = {kind.__name__: kind for kind in KINDS}
        for kind, key, value in self.database.execute("SELECT kind, key, value FROM records ORDER BY rowid"):
            self.tables[names[kind]][key] = names[kind](**json.loads(value))
        self.settings = self.get(Settings, "settings") or Settings()

    def get(self, kind: type[R], key: str) -> R | None:
        return self.tables[kind].get(key)

    def all(self, kind: type[R]) -> list[R]:
        return list(self.tables[kind].values())

    def save(self, record: Record) -> None:
        self.tables[type(record)][record.key] = record
        self.database.execute(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            (type(record).__name__, record.key, json.dumps(asdict(record))),
        )

    def delete(self, record: Record, key: str | None = None) -> None:
        key = key or record.key
        self.tables[type(record)].pop(key, None)
        self.database.execute("DELETE FROM records WHERE kind = ? AND key = ?", (type(record).__name__, key))

    def discussions(self, repo: Repo) -> Iterator[Discussion]:
        """All discussions and pull requests of a repository, oldest first."""
        for num in range(1, repo.last_num + 1):
            if discussion := self.get(Discussion, f"{repo.key}#{num}"):
                yield discussion

    def close(self) -> None:
        self.database.close()
