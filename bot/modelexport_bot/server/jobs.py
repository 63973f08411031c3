"""Jobs that survive us: dbos workflows, one whose steps are the four of a run, one that answers a comment.

What is durable:

- A job is on record before its delivery is answered. Its id says what it is for, the repo and the commit or comment, so
  that a delivery that comes twice is one job. If that job has failed, the second delivery starts it anew: somebody has
  asked for it.
- After a crash or a stop, :meth:`Jobs.start` goes on after the last step that ended. A step that was interrupted is
  done again; each can be (see ``steps.py``).
- Jobs of one repo run one after the other. A job works on the head of ``main``, so that the ones behind it find nothing
  left to do; nobody has to take them out of the queue.

Stopping needs no care for the same reason: the process may simply end (see ``run.py``).
"""

import contextlib
import hashlib
import itertools
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, StepOptions, WorkflowStatusString
from dbos import error as dbos_error

from modelexport.contract.errors import HubUnavailableError, ModelExportError, RateLimitedError, UsageError
from modelexport_bot import commands, scratch
from modelexport_bot.credentials import redact
from modelexport_bot.exporters import Exporters
from modelexport_bot.job import Job
from modelexport_bot.progress import Progress
from modelexport_bot.result import Outcome
from modelexport_bot.server import database, recorded, retention, shown
from modelexport_bot.server.log import JobLog, logger
from modelexport_bot.server.recorded import Json
from modelexport_bot.server.router import Submitted
from modelexport_bot.server.steps import Steps
from modelexport_bot.server.stopping import stoppable
from modelexport_bot.settings import Settings

APPLICATION_VERSION = "1"
"""dbos goes on only with jobs of its own version, by default a hash of the code: an upgrade would not find old ones.

The order and the names of the steps are what this stands for. If they ever change, let the old jobs run out first.
"""

QUEUE = "jobs"
EXPORT = "export"
REPLY = "reply"

_PLANS = 3  # how often a job plans afresh because the source moved under it
_RECOVERIES = 20  # how often a job that ends with its server every time is taken up again
_SHOWN = 50

P = ParamSpec("P")
T = TypeVar("T")
Workflow = Callable[[str, str, bool], Json]
"""Of the repo, of the commit or thread it is about, and whether the repo is private."""


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
        settings: what the jobs may do, and with which token; none of it is recorded.
        directory: holds the database, unless ``database_url`` names another, and a scratch folder for each running job.
        database_url: PostgreSQL instead of SQLite.
        concurrency: how many jobs may run at a time.
        kept: how long a job stays on record after its end.
        retries: see :class:`Retries`.
        polling: seconds between two looks at the database.
        clearing: time between two looks for what can be forgotten, after the one at the start.
        job: the class whose steps are run.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        database_url: str | None = None,
        concurrency: int = 1,
        kept: timedelta = retention.KEPT,
        retries: Retries | None = None,
        polling: float = 1.0,
        clearing: timedelta = timedelta(days=1),
        job: type[Job] = Job,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._scratch = directory / "jobs"
        self._database_url = database_url or database.in_directory(directory)
        self._concurrency = concurrency
        self._retries = retries or Retries()
        self._polling = polling
        self._stopping = threading.Event()
        self._stoppable = stoppable(job, self._stopping)
        self._exporters = Exporters(keep=concurrency)
        self._workflows: dict[str, Workflow] = {}
        self._kept = kept
        self._daily = retention.Daily(self._clear_up, every=clearing)

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
        for name, method in {EXPORT: self._export, REPLY: self._reply}.items():
            register = DBOS.workflow(name=name, max_recovery_attempts=_RECOVERIES)
            self._workflows[name] = register(self._with_an_outcome(method))
        DBOS.launch()
        self._clear_up()
        self._daily.start()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._concurrency,
            partition_concurrency=1,  # a partition is a repo
            polling_interval_sec=self._polling,
            on_conflict="always_update",
        )

    def expect_stop(self) -> None:
        """The process is about to end: an export that ends now has not failed."""
        self._stopping.set()

    def stop(self) -> None:
        """Let go of the database and end the exporters.

        A job that is running is not waited for, and goes on at the next start.
        """
        self._daily.stop()
        DBOS.destroy(destroy_registry=True)
        self._exporters.close()

    # handing in, and looking

    def export(self, repo: str, sha: str, *, private: bool) -> Submitted:
        """Record a job for a repo whose ``main`` is at ``sha`` now. It is durable when this returns."""
        return self._submit(EXPORT, f"{repo}@{sha}", repo, sha, private=private)

    def reply(self, repo: str, num: int, comment: str, *, private: bool) -> Submitted:
        """Record a job that answers what is unanswered in a thread, now that there is this comment."""
        return self._submit(REPLY, f"{repo}#{num}/{comment}", repo, str(num), private=private)

    def recent(self) -> list[Json]:
        """The latest jobs, newest first, as everybody may see them."""
        # by name, as dbos takes a job that was given up or cancelled out of its queue
        found = DBOS.list_workflows(name=[EXPORT, REPLY], sort_desc=True, limit=_SHOWN)
        return [shown.shown(status) for status in found]

    def _submit(self, workflow: str, about: str, repo: str, detail: str, *, private: bool) -> Submitted:
        for attempt in itertools.count(1):
            job = about if attempt == 1 else f"{about}~{attempt}"
            once = SetWorkflowID(job, workflow_id_reuse_policy="reject")
            in_turn = SetEnqueueOptions(queue_partition_key=repo)
            with contextlib.suppress(dbos_error.DBOSWorkflowIDInUseError), once, in_turn:
                DBOS.enqueue_workflow(QUEUE, self._workflows[workflow], repo, detail, private)
                return Submitted(job, new=True)
            found = DBOS.list_workflows(workflow_ids=[job], load_input=False)  # nothing if just forgotten
            if any(shown.state(status) != shown.FAILED for status in found):
                break
        return Submitted(job, new=False)

    # the workflows

    def _export(self, repo: str, _sha: str, job: str) -> Json:
        """The four steps, once more from the start when the source has moved in the meantime."""
        for number in range(_PLANS):
            steps = Steps(self._job(self._settings_for(job), JobLog(job)), self._folder_of(job) / str(number))
            plan = self._step("resolve", steps.resolve, repo)
            if recorded.plan_from_json(plan).decision.needs_export:
                self._step("fetch", steps.fetch, plan)
                self._step("export", steps.export, plan)
            result = self._step("publish", steps.publish, plan)
            if result is not None:
                return result
        raise HubUnavailableError(
            f"{repo} changed {_PLANS} times while it was being exported. The next push starts anew."
        )

    def _reply(self, repo: str, num: str, job: str) -> Json:
        def answer() -> Json:
            try:
                answered = commands.reply(repo, int(num), self._settings_for(job), JobLog(job), job=self._job)
            except UsageError as error:  # somebody else's pull request
                return {"outcome": Outcome.SKIPPED.value, "reason": error.message}
            return {"outcome": "answered", "reason": f"{len(answered)} commands answered in #{num}."}

        return self._step(REPLY, answer)

    def _with_an_outcome(self, work: Callable[[str, str, str], Json]) -> Workflow:
        """The workflow around the steps: a failure that somebody can act on is an outcome, too."""

        def workflow(repo: str, detail: str, private: bool) -> Json:  # noqa: ARG001  (for shown.py)
            job = DBOS.workflow_id
            assert job is not None
            try:
                outcome = work(repo, detail, job)
            except (ModelExportError, dbos_error.DBOSMaxStepRetriesExceeded) as error:
                failure = recorded.typed(error)
                if failure is None:
                    raise
                outcome = {"outcome": shown.FAILED, "code": failure.code.value, "reason": redact(failure.message)}
            shutil.rmtree(self._folder_of(job), ignore_errors=True)
            logger.info("%s: %s: %s", job, outcome["outcome"], outcome["reason"])
            return outcome

        return workflow

    def _step(self, name: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the step returns, or has returned before."""
        options: StepOptions = {
            "name": name,
            "retries_allowed": True,
            "max_attempts": self._retries.attempts,
            "interval_seconds": self._retries.first_wait,
            "backoff_rate": 2.0,
            "should_retry": lambda error: isinstance(error, HubUnavailableError | RateLimitedError),
        }
        return DBOS.run_step(options, work, *args, **kwargs)

    def _job(self, settings: Settings, progress: Progress) -> Job:
        return self._stoppable(settings, progress, exporters=self._exporters)

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

    def _settings_for(self, job: str) -> Settings:
        """A job's downloads end with it: nobody else would ever remove them."""
        return replace(self._settings, downloads=self._folder_of(job) / "downloads")

    def _clear_up(self) -> None:
        """Forget what ended long ago, and remove what killed jobs have left on disk."""
        self._remove_abandoned_folders()
        scratch.remove_abandoned(self._settings.cache)
        if count := retention.forget((EXPORT, REPLY), datetime.now(UTC) - self._kept):
            logger.info("forgot %d jobs that ended more than %d days ago", count, self._kept.days)

    def _remove_abandoned_folders(self) -> None:
        """The folders of jobs that ended without clearing up: a bug in one, or one given up after too many crashes."""
        there = set(self._scratch.iterdir())  # before the look at the jobs: one may begin in between
        unfinished = [WorkflowStatusString.ENQUEUED.value, WorkflowStatusString.PENDING.value]
        found = DBOS.list_workflows(status=unfinished, load_input=False, load_output=False)
        for folder in there - {self._folder_of(status.workflow_id) for status in found}:
            shutil.rmtree(folder, ignore_errors=True)
