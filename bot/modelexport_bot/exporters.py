"""The exporters that jobs share: started ahead of time, lent to one job at a time, some of them kept warm.

Importing PyTorch, transformers and Optimum takes longer than many an export. So a run starts its exporter before it
downloads the snapshot, and who has many jobs (the server, a sweep) keeps exporters for the next of them.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelexport_bot.sandbox import Exporter


class Exporters:
    """Idle exporters. Its methods may be called from any thread.

    Args:
        keep: how many are kept when they have nothing to do; 0 means that none outlives the job it was started for.
    """

    def __init__(self, keep: int = 0) -> None:
        self._keep = keep
        self._idle: list[Exporter] = []
        self._lock = threading.Lock()
        self._closed = False

    def start_one(self, python: Path, inherited: Mapping[str, str]) -> None:
        """See to it that an exporter is importing its engine, or has done so, for a job to come."""
        exporter = self._taken(python) or Exporter(python, inherited)
        try:
            exporter.start()
        except BaseException:
            exporter.close()
            raise
        self._give_back(exporter, max(self._keep, 1))

    @contextlib.contextmanager
    def lent(self, python: Path, inherited: Mapping[str, str]) -> Iterator[Exporter]:
        """An exporter for one job: an idle one, or another."""
        exporter = self._taken(python) or Exporter(python, inherited)
        try:
            yield exporter
        finally:
            self._give_back(exporter, self._keep)

    def settle(self) -> None:
        """A run is over: end what it has started and is not kept."""
        with self._lock:
            kept, surplus = self._idle[: self._keep], self._idle[self._keep :]
            self._idle = kept
        for exporter in surplus:
            exporter.close()

    def close(self) -> None:
        """End all, those on loan as soon as they are given back."""
        with self._lock:
            self._closed, self._keep = True, 0
        self.settle()

    def _taken(self, python: Path) -> Exporter | None:
        with self._lock:
            found = next((exporter for exporter in self._idle if exporter.python == python), None)
            if found is not None:
                self._idle.remove(found)
            return found

    def _give_back(self, exporter: Exporter, room: int) -> None:
        with self._lock:
            if kept := len(self._idle) < room and not self._closed:
                self._idle.append(exporter)
        if not kept:
            exporter.close()
