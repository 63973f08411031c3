"""What a run ended with: one outcome, and what a person or a machine wants to know about it."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """The cases of the behaviour table in ``docs/pull-requests.md``; failures are errors, not outcomes."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DECLINED = "declined"
    BLOCKED = "blocked"
    SKIPPED = "skipped"
    CLOSED = "closed"
    DRY_RUN = "dry_run"


@dataclass(frozen=True)
class PublishedFile:
    """A file of the pull request, ``path`` relative to the repo's root."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """The outcome of one run on one repo.

    Attributes:
        outcome: which case it was.
        repo: the repo's canonical id (after a rename, the new one).
        reason: one sentence that says why, for people.
        sha: the commit of the source that was exported, or would be.
        pull_request: number of our pull request, where there is one.
        url: its page.
        title, body, files: what the pull request says and holds; filled on ``created``, ``updated`` and ``dry_run``.
        warnings: what the operator should know though nothing failed.
        output: where the folder was kept (``--output``).
    """

    outcome: Outcome
    repo: str
    reason: str
    sha: str | None = None
    pull_request: int | None = None
    url: str | None = None
    title: str | None = None
    body: str | None = None
    files: tuple[PublishedFile, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    output: str | None = None

    def to_json(self) -> str:
        """One line of JSON; keys are stable."""
        return json.dumps(asdict(self), ensure_ascii=False)
