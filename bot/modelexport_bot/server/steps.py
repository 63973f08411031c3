"""The four steps of a job with JSON between them, and what lies on disk checked each time.

A step may find more than it expects (it was interrupted after its work, before that was on record) or less (the folder
was lost with a machine). So a folder gets its name when it is whole, and each step makes what it needs and misses.
"""

from dataclasses import asdict
from pathlib import Path

from modelexport_bot.job import Job
from modelexport_bot.publish import SourceMovedError
from modelexport_bot.server import recorded
from modelexport_bot.server.recorded import Json


class Steps:
    """One job's steps, on one plan's folder."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._folder = folder

    def resolve(self, repo: str) -> Json:
        """The plan."""
        return recorded.plan_to_json(self._job.resolve(repo))

    def fetch(self, plan: Json) -> None:
        """Leaves the snapshot on disk."""
        self._snapshot(plan)

    def export(self, plan: Json) -> None:
        """Leaves the ``onnx/`` folder on disk."""
        self._onnx(plan)

    def publish(self, plan: Json) -> Json | None:
        """The result; None if the source has moved and the job is to be planned again."""
        planned = recorded.plan_from_json(plan)
        onnx = self._onnx(plan) if planned.decision.needs_export else None
        try:
            result = asdict(self._job.publish(planned, onnx))
        except SourceMovedError:
            return None
        return {key: result[key] for key in ("outcome", "reason", "repo", "sha", "pull_request", "url")}

    def _snapshot(self, plan: Json) -> Path:
        snapshot = self._folder / "snapshot"
        if not snapshot.exists():
            self._job.warm_up()
            self._job.fetch(recorded.plan_from_json(plan), self._folder / "fetching").rename(snapshot)
        return snapshot

    def _onnx(self, plan: Json) -> Path:
        onnx = self._folder / "onnx"
        if not onnx.exists():  # the exporter itself names it last
            self._job.export(recorded.plan_from_json(plan), self._snapshot(plan), onnx)
        return onnx
