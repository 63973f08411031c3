"""Jobs that survive us: each is a dbos workflow whose steps are the four steps of :class:`~modelexport_bot.job.Job`.

What is durable:

- A job is on record before its delivery is answered. Its id is the repo and the commit, so that a delivery that comes
  twice is one job. If that job has failed, the second delivery starts it anew: somebody asked for it.
- After a crash or a stop, :meth:`Jobs.start` goes on after the last step that ended. A step that was interrupted is
  done again; each can be. What earlier steps left on disk is used if it is there, and made again if it is not.
- Jobs of one repo run one after the other. A job works on the head of ``main``, so that the ones behind it find nothing
  left to do; nobody has to take them out of the queue.

Stopping needs no care for the same reason: the process may simply end (see ``run.py``).
"""

import contextlib
import hashlib
import itertools
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, StepOptions, WorkflowStatus, WorkflowStatusString
from dbos.error import DBOSMaxStepRetriesExceeded, DBOSWorkflowIDInUseError

from modelexport.contract.errors import HubUnavailableError, ModelExportError, RateLimitedError
from modelexport_bot.job import Job
from modelexport_bot.progress import Progress
from modelexport_bot.publish import SourceMovedError
from modelexport_bot.server import recorded
from modelexport_bot.server.log import JobLog, logger
from modelexport_bot.server.recorded import Json
from modelexport_bot.server.router import Submitted

APPLICATION_VERSION = "1"
"""dbos goes on only with jobs of its own version, by default a hash of the code: no upgrade would find the old one's jobs.

The order and the names of the steps are what this stands for. If they ever change, let the old jobs run out first.
"""

QUEUE = "jobs"
WORKFLOW = "export"
FAILED = "failed"

_PLANS = 3  # how often a job plans afresh because the source moved under it
_RECOVERIES = 20  # how often a job that ends with its server every time is taken up again
_SHOWN = 50
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Retries:
    """How a step that failed for want of the Hub is repeated, each request's own patience aside.

    Attributes:
        attempts: how often the step is tried at most.
        first_wait: seconds before the second attempt; doubles from there.
    """

    attempts: int = 6
    first_wait: float = 30.0


class Jobs:
    """The jobs of one data directory. One instance at a time in a process, since dbos keeps its state in globals.

    Args:
        make_job: the job for what a workflow's steps do, given where to tell progress.
        directory: holds the database, unless ``database_url`` names another, and a scratch folder for each running job.
        database_url: PostgreSQL instead of SQLite.
        concurrency: how many jobs may run at a time.
        retries: see :class:`Retries`.
        polling: seconds between two looks at the queue.
    """

    def __init__(
        self,
        make_job: Callable[[Progress], Job],
        directory: Path,
        *,
        database_url: str | None = None,
        concurrency: int = 1,
        retries: Retries | None = None,
        polling: float = 1.0,
    ) -> None:
        self._make_job = make_job
        self._directory = directory
        self._scratch = directory / "jobs"
        self._database_url = database_url or f"sqlite:///{directory / 'jobs.sqlite'}"
        self._concurrency = concurrency
        self._retries = retries or Retries()
        self._polling = polling
        self._workflow: Callable[[str, str, bool], Json] = self._run

    # life

    def start(self) -> None:
        """Open the database and go on with the jobs that are not done."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        DBOS(
            config={
                "name": "modelexport-bot",
                "system_database_url": self._database_url,
                "application_version": APPLICATION_VERSION,
                "executor_id": self._identity(),
                "serializer": recorded.JsonSerializer(),
                "enable_otlp": False,
                "log_level": "WARNING",
                "notification_listener_polling_interval_sec": self._polling,
            }
        )
        # Registered here and not by a decorator, so that importing this module leaves dbos alone.
        self._workflow = DBOS.workflow(name=WORKFLOW, max_recovery_attempts=_RECOVERIES)(_plain(self._run))
        DBOS.launch()
        self._remove_abandoned_folders()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._concurrency,
            partition_concurrency=1,  # a partition is a repo
            polling_interval_sec=self._polling,
            on_conflict="always_update",
        )

    def stop(self) -> None:
        """Let go of the database. A job that is running is not waited for, and goes on at the next start."""
        DBOS.destroy(destroy_registry=True)

    # handing in, and looking

    def submit(self, repo: str, sha: str, *, private: bool) -> Submitted:
        """Record a job for a repo whose ``main`` is at ``sha`` now. It is durable when this returns."""
        for attempt in itertools.count(1):
            job = f"{repo}@{sha}" if attempt == 1 else f"{repo}@{sha}#{attempt}"
            once = SetWorkflowID(job, workflow_id_reuse_policy="reject")
            with contextlib.suppress(DBOSWorkflowIDInUseError), once, SetEnqueueOptions(queue_partition_key=repo):
                DBOS.enqueue_workflow(QUEUE, self._workflow, repo, sha, private)
                return Submitted(job, new=True)
            if not self._has_failed(job):
                break
        return Submitted(job, new=False)

    def recent(self) -> list[Json]:
        """The latest jobs, newest first. Of a private repo's no more than that there is one."""
        return [_shown(status) for status in DBOS.list_workflows(name=WORKFLOW, sort_desc=True, limit=_SHOWN)]

    # the workflow

    def _run(self, repo: str, sha: str, private: bool) -> Json:  # noqa: ARG002 (recorded for /jobs; positional in dbos)
        """One job, from resolve to publish. A failure that somebody can act on is an outcome, too."""
        job = DBOS.workflow_id
        assert job is not None
        own = self._folder_of(job)
        try:
            outcome = self._planned(job, repo, own)
        except (ModelExportError, DBOSMaxStepRetriesExceeded) as error:
            failure = recorded.typed(error)
            if failure is None:
                raise
            outcome = {"outcome": FAILED, "code": failure.code.value, "reason": failure.message}
        shutil.rmtree(own, ignore_errors=True)
        logger.info("%s: %s: %s", job, outcome["outcome"], outcome["reason"])
        return outcome

    def _planned(self, job: str, repo: str, own: Path) -> Json:
        """The four steps, once more from the start when the source has moved in the meantime."""
        steps = _Steps(self._make_job(JobLog(job)))
        for number in range(_PLANS):
            folder = own / str(number)
            plan = DBOS.run_step(self._step("resolve"), steps.resolve, repo)
            if recorded.plan_from_json(plan).decision.needs_export:
                DBOS.run_step(self._step("fetch"), steps.fetch, plan, folder)
                DBOS.run_step(self._step("export"), steps.export, plan, folder)
            result = DBOS.run_step(self._step("publish"), steps.publish, plan, folder)
            if result["outcome"] is not None:
                return result
        raise HubUnavailableError(
            f"{repo} changed {_PLANS} times while it was being exported. The next push starts anew."
        )

    def _step(self, name: str) -> StepOptions:
        return {
            "name": name,
            "retries_allowed": True,
            "max_attempts": self._retries.attempts,
            "interval_seconds": self._retries.first_wait,
            "backoff_rate": 2.0,
            "should_retry": lambda error: isinstance(error, HubUnavailableError | RateLimitedError),
        }

    # what is where

    def _identity(self) -> str:
        """Who we are to other servers on the same database: whose unfinished jobs a start takes up again."""
        file = self._directory / "id"
        if not file.exists():
            temporary = file.with_suffix(".new")
            temporary.write_text(uuid.uuid4().hex)
            temporary.replace(file)
        return file.read_text()

    def _folder_of(self, job: str) -> Path:
        return self._scratch / hashlib.sha256(job.encode()).hexdigest()[:24]

    def _remove_abandoned_folders(self) -> None:
        """The folders of jobs that ended without us: a bug in one, or one given up after too many crashes."""
        unfinished = [WorkflowStatusString.ENQUEUED.value, WorkflowStatusString.PENDING.value]
        found = DBOS.list_workflows(name=WORKFLOW, status=unfinished, load_input=False, load_output=False)
        kept = {self._folder_of(status.workflow_id) for status in found}
        for folder in set(self._scratch.iterdir()) - kept:
            shutil.rmtree(folder, ignore_errors=True)

    def _has_failed(self, job: str) -> bool:
        (status,) = DBOS.list_workflows(workflow_ids=[job], load_input=False)
        return _state(status) in (FAILED, "cancelled")


class _Steps:
    """The job's steps with JSON between them, and what lies on disk checked each time."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def resolve(self, repo: str) -> Json:
        return recorded.plan_to_json(self._job.resolve(repo))

    def fetch(self, plan: Json, folder: Path) -> None:
        self._snapshot(plan, folder)

    def export(self, plan: Json, folder: Path) -> None:
        self._onnx(plan, folder)

    def publish(self, plan: Json, folder: Path) -> Json:
        """The result; its outcome is None if the source has moved."""
        planned = recorded.plan_from_json(plan)
        exported = self._onnx(plan, folder) if planned.decision.needs_export else None
        try:
            result = asdict(self._job.publish(planned, exported))
        except SourceMovedError:
            return {"outcome": None}
        return {key: result[key] for key in ("outcome", "reason", "repo", "sha", "pull_request", "url", "warnings")}

    def _snapshot(self, plan: Json, folder: Path) -> Path:
        snapshot = folder / "snapshot"
        if not snapshot.exists():  # made at the end of a fetch, so it is whole
            filled = self._job.fetch(recorded.plan_from_json(plan), folder / "fetching")
            filled.rename(snapshot)
        return snapshot

    def _onnx(self, plan: Json, folder: Path) -> Path:
        onnx = folder / "onnx"
        if not onnx.exists():  # the exporter makes it at the end, so it is whole
            self._job.export(recorded.plan_from_json(plan), self._snapshot(plan, folder), onnx)
        return onnx


def _plain(method: Callable[[str, str, bool], Json]) -> Callable[[str, str, bool], Json]:
    """A function that calls the method; dbos records the instance of a method it is given, and ours is nobody's business."""

    def workflow(repo: str, sha: str, private: bool) -> Json:
        return method(repo, sha, private)

    return workflow


# --- what is shown ---------------------------------------------------------------------------------------------------


def _state(status: WorkflowStatus) -> str:
    """``queued``, ``running``, ``failed``, ``cancelled``, or the job's outcome."""
    match status.status:
        case "ENQUEUED" | "DELAYED":
            return "queued"
        case "PENDING":
            return "running"
        case "SUCCESS":
            assert status.output is not None
            return str(status.output["outcome"])
        case "CANCELLED":
            return "cancelled"
    return FAILED  # ERROR: a bug of ours; MAX_RECOVERY_ATTEMPTS_EXCEEDED: its server died each time


def _shown(status: WorkflowStatus) -> Json:
    assert status.input is not None
    repo, sha, private = status.input["args"]
    output = status.output or {}
    shown: Json = {"state": _state(status), "code": output.get("code")}
    shown |= {"received": _time(status.created_at), "finished": _time(status.completed_at)}
    if private:
        return shown | {"private": True}
    reason = str(output.get("reason", "")).partition("\n")[0][:_LONGEST_REASON]
    about = {"job": status.workflow_id, "repo": repo, "sha": sha}
    return about | shown | {"reason": reason or None, "url": output.get("url")}


def _time(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None
