"""Sweep: the job on all of an owner's models, one after the other."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from modelexport.contract import ErrorCode, ModelExportError
from modelexport.contract.errors import (
    EnvironmentFailedError,
    HubUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)
from modelexport_bot.exporters import Exporters
from modelexport_bot.hub import Hub
from modelexport_bot.job import Job
from modelexport_bot.progress import Progress
from modelexport_bot.result import Result
from modelexport_bot.settings import Settings

_HOPELESS = (EnvironmentFailedError, HubUnavailableError, RateLimitedError, UnauthorizedError)
"""What would fail for the next model in the same way."""


@dataclass(frozen=True)
class Row:
    """What became of one model: a result, or the code and message of its error."""

    repo: str
    result: Result | None = None
    code: ErrorCode | None = None
    message: str = ""

    @property
    def outcome(self) -> str:
        """The outcome's name, or the error's code."""
        return self.result.outcome.value if self.result else str(self.code)

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.result.reason if self.result else self.message

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found: dict[str, Any] = {"repo": self.repo, "outcome": self.outcome, "reason": self.reason}
        return found | {
            "pull_request": self.result.pull_request if self.result else None,
            "url": self.result.url if self.result else None,
        }


def sweep(
    owner: str, settings: Settings, progress: Progress, *, limit: int | None = None, job: type[Job] = Job
) -> Iterator[Row]:
    """Go through an owner's models, most recently changed first.

    With ``settings.dry_run`` it says what it would do, without exporting anything.

    Raises:
        ModelExportError: one that the next model would meet as well; the rows before it have been given out.
    """
    hub = Hub.of(settings)
    with contextlib.closing(Exporters(keep=1)) as exporters:
        for repo in hub.models_of(owner, limit):
            one = job(replace(settings, output=None), progress, exporters=exporters)
            try:
                yield Row(repo, one.status(repo) if settings.dry_run else one.run(repo))
            except _HOPELESS:
                raise
            except ModelExportError as error:
                yield Row(repo, code=error.code, message=error.message)
