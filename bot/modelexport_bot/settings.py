"""What the operator decided, in one frozen object: flags first, then the environment, then a file.

Nothing downstream reads the environment. The repo's own wishes (:mod:`modelexport_bot.policy`) are not in here.
"""

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, StringConstraints, ValidationError

from modelexport.contract import parse_size
from modelexport.contract.errors import UsageError
from modelexport_bot.credentials import Token

PUBLIC_HUB = "https://huggingface.co"
DEFAULT_TIMEOUT = 3600.0

Dtype = Literal["float32", "source"]


@dataclass(frozen=True)
class Patience:
    """How long we put up with a Hub that does not answer.

    Attributes:
        attempts: how often one request is sent at most.
        first_wait: seconds before the second attempt; doubles from there, with jitter.
        longest_wait: seconds, the cap of the doubling.
        total: seconds after which one request is given up, waits that the Hub asks for (``Retry-After``) included.
        connect, read: seconds for a connection, and between two bytes of an answer.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 30.0
    total: float = 300.0
    connect: float = 15.0
    read: float = 60.0


@dataclass(frozen=True)
class Overrides:
    """Export options given by the operator; None leaves the choice to the repo, and then to the default."""

    task: str | None = None
    opset: int | None = None
    dtype: Dtype | None = None
    atol: float | None = None


@dataclass(frozen=True)
class Limits:
    """What the operator allows the bot to do, on any repo.

    Attributes:
        allow: patterns (``acme/*``) of the repos to touch; empty means all.
        deny: patterns of the repos to leave alone; wins over ``allow``.
        max_size: largest sum of weight files to export, in bytes.
        pull_requests_per_day: most pull requests to open within 24 hours.
        pull_requests_per_owner: most pull requests to open with one owner within 24 hours.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_size: int | None = None
    pull_requests_per_day: int | None = None
    pull_requests_per_owner: int | None = None


@dataclass(frozen=True)
class Settings:
    """Everything the operator decided about a run.

    Attributes:
        endpoint: the Hub.
        token: None means anonymous: enough for a dry run on a public repo.
        keyless: the repo or user to ask a short-lived token for (Trusted Publishers); replaces ``token``.
        revision: branch, tag or commit of the source; None means the default branch.
        overrides, limits, patience: see their classes.
        output: where to keep a copy of the exported folder.
        dry_run: everything but the writes.
        reopen: come back on a pull request that a person closed, once the weights have changed.
        replace: replace an ``onnx/`` folder that is not ours.
        rebuild: export even where nothing has changed (a person asked for it).
        timeout: seconds an export may take.
        max_memory: bytes an export may hold; None for no limit of ours.
        cache: where environments, snapshots' checks and the ledger live.
        downloads: where the Hub's client keeps what it fetches; None for its own cache, which all clients share.
        exporter_python, torch_index: see :mod:`modelexport_bot.environment`.
        mention: the name that commands in a thread are addressed to.
        trust_remote_code: ids of the repos whose own Python code may be run, each spelled as the Hub spells it. No
            patterns, because somebody has to have read the code.
    """

    endpoint: str = PUBLIC_HUB
    token: Token | None = None
    keyless: str | None = None
    revision: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    output: Path | None = None
    dry_run: bool = False
    reopen: bool = False
    replace: bool = False
    rebuild: bool = False
    timeout: float = DEFAULT_TIMEOUT
    max_memory: int | None = None
    cache: Path = field(default_factory=lambda: platformdirs.user_cache_path("modelexport"))
    downloads: Path | None = None
    exporter_python: Path | None = None
    torch_index: str | None = None
    mention: str = "modelexport-bot"
    trust_remote_code: tuple[str, ...] = ()


_RepoId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]


class _File(BaseModel):
    """The operator's file, ``modelexport-bot.toml``: what stays the same from run to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    dry_run: bool | None = None
    timeout: PositiveFloat | None = None
    max_memory: str | None = Field(default=None, description="such as 8GB")
    mention: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_size: str | None = Field(default=None, description="such as 2GB")
    pull_requests_per_day: PositiveInt | None = None
    pull_requests_per_owner: PositiveInt | None = None
    trust_remote_code: tuple[_RepoId, ...] = Field(default=(), description="ids of repos, no patterns")


def default_file() -> Path:
    """Where the operator's file is looked for if ``--config`` names none."""
    return platformdirs.user_config_path("modelexport") / "modelexport-bot.toml"


def load(file: Path | None, **given: Any) -> Settings:
    """The settings: the operator's file, overlaid with what flags and environment gave (None: not given).

    Args:
        file: the operator's file; None means :func:`default_file`, which need not exist.
        given: values by field name of :class:`Settings`.

    Raises:
        UsageError: the file is missing though named, is no TOML, or has unknown or wrong keys.
    """
    written = _read(file)
    limits = Limits(
        allow=written.allow,
        deny=written.deny,
        max_size=parse_size(written.max_size) if written.max_size else None,
        pull_requests_per_day=written.pull_requests_per_day,
        pull_requests_per_owner=written.pull_requests_per_owner,
    )
    from_file: dict[str, Any] = {
        "endpoint": written.endpoint,
        "dry_run": written.dry_run,
        "timeout": written.timeout,
        "max_memory": parse_size(written.max_memory) if written.max_memory else None,
        "mention": written.mention,
        "limits": limits,
        "trust_remote_code": written.trust_remote_code,
    }
    known = {entry.name for entry in fields(Settings)}
    assert given.keys() <= known
    values = {name: value for name, value in (from_file | _present(given)).items() if value is not None}
    settings = Settings(**values)
    return replace(settings, endpoint=settings.endpoint.rstrip("/"))


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read(file: Path | None) -> _File:
    path = file or default_file()
    if file is None and not path.exists():
        return _File()
    try:
        return _File.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}. Check --config.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UsageError(f"{path}: {wrong}. The keys are: {', '.join(_File.model_fields)}.") from error
