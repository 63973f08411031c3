"""An export that ends because the server is being stopped has not failed.

Whoever stops us may stop the exporter as well: systemd signals every process of a service. Its end looks like a crash
then, and must not go on record, nor be told to anybody, as something wrong with the model.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from modelexport.contract.errors import (
    CancelledError,
    EnvironmentFailedError,
    ExporterCrashedError,
    OutOfMemoryError,
)
from modelexport_bot.job import Job
from modelexport_bot.resolve import Plan

_SIGNAL_ARRIVES = 1.0  # seconds between the end of a child and the signal to us, if both were stopped together

_CHILD_ENDED = (CancelledError, EnvironmentFailedError, ExporterCrashedError, OutOfMemoryError)
"""What the end of a child process looks like, whoever caused it."""


class Stopped(BaseException):
    """What was being done is to be done again by the next process. No Exception: dbos would record it."""


def stoppable(job: type[Job], stopping: threading.Event) -> type[Job]:
    """The job, but for work of child processes that raises :class:`Stopped` if it ends while the event is set."""

    @contextlib.contextmanager
    def unless_stopped() -> Iterator[None]:
        try:
            yield
        except _CHILD_ENDED:
            if stopping.wait(_SIGNAL_ARRIVES):
                raise Stopped from None
            raise

    class Stoppable(job):  # type: ignore[misc, valid-type]
        def warm_up(self) -> None:
            with unless_stopped():
                super().warm_up()

        def export(self, plan: Plan, snapshot: Path, folder: Path) -> Path:
            with unless_stopped():
                exported: Path = super().export(plan, snapshot, folder)
            return exported

    return Stoppable
