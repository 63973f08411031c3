"""What the server forgets: jobs that ended so long ago that nobody asks for them any more.

What became of them is on the Hub. All that the record is still good for is to know a delivery that comes once more; one
that comes after this is a new job, which finds nothing left to do.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from dbos import DBOS, WorkflowStatusString
from sqlalchemy.exc import SQLAlchemyError

from modelexport_bot.server.log import logger

KEPT = timedelta(days=30)
"""How long a job that has ended stays on record, unless the operator says otherwise."""

ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""The states of a workflow that dbos does not leave by itself."""

_AT_ONCE = 500  # jobs deleted in one transaction
_LAST_TIME = 5  # seconds that what is being done may take after a stop

assert {state.value for state in WorkflowStatusString} >= set(ENDED)


def forget(workflows: Sequence[str], before: datetime) -> int:
    """Delete the record of all that ended before a moment, with their steps; returns how many there were.

    Args:
        workflows: the names of the workflows that are ours to delete.
        before: compared with the end of a job, not with its beginning.
    """
    found = DBOS.list_workflows(
        name=list(workflows),
        status=list(ENDED),
        completed_before=before.isoformat(),
        load_input=False,
        load_output=False,
    )
    jobs = [status.workflow_id for status in found]
    for start in range(0, len(jobs), _AT_ONCE):
        DBOS.delete_workflows(jobs[start : start + _AT_ONCE])
    return len(jobs)


class Daily:
    """Something to be done once a day, in a thread of its own.

    Args:
        work: what; a database that is away then is no reason to stop serving, and it is done the next day.
        every: time between two times.
    """

    def __init__(self, work: Callable[[], object], *, every: timedelta = timedelta(days=1)) -> None:
        self._work = work
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daily", daemon=True)

    def start(self) -> None:
        """The first time comes after ``every``."""
        self._thread.start()

    def stop(self) -> None:
        """Return when nothing is being done any more."""
        self._stopped.set()
        self._thread.join(_LAST_TIME)

    def _run(self) -> None:
        while not self._stopped.wait(self._every.total_seconds()):
            try:
                self._work()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("cannot clear up now: %s", error)
