"""When this operator's bot opened which pull request, so that it can keep to so many a day.

The Hub holds all state of pull requests; how much a bot has done today is the bot's own affair, so that it is kept
here: one JSON line for each, in the cache directory, read and written under a file lock.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from modelexport_bot.settings import Limits

DAY = 24 * 3600.0


@dataclass(frozen=True)
class Ledger:
    """The pull requests of the last 24 hours."""

    file: Path

    def exhausted(self, repo: str, limits: Limits) -> str | None:
        """Why no further pull request may be opened now on this repo; None if one may."""
        recent = self._recent()
        owner = repo.partition("/")[0]
        with_owner = sum(entry.partition("/")[0] == owner for entry in recent)
        if limits.pull_requests_per_day is not None and len(recent) >= limits.pull_requests_per_day:
            return f"{len(recent)} pull requests were opened in the last 24 hours, as many as the operator allows."
        if limits.pull_requests_per_owner is not None and with_owner >= limits.pull_requests_per_owner:
            return f"{with_owner} pull requests were opened with {owner} in 24 hours, as many as the operator allows."
        return None

    def record(self, repo: str) -> None:
        """A pull request was opened on this repo, now."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):
            kept = [json.dumps({"time": moment, "repo": name}) for moment, name in self._entries()]
            kept.append(json.dumps({"time": time.time(), "repo": repo}))
            temporary = self.file.with_suffix(".new")
            temporary.write_text("\n".join(kept) + "\n")
            temporary.replace(self.file)

    def _recent(self) -> list[str]:
        return [repo for _, repo in self._entries()]

    def _entries(self) -> list[tuple[float, str]]:
        if not self.file.exists():
            return []
        entries = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [(entry["time"], entry["repo"]) for entry in entries if time.time() - entry["time"] < DAY]
