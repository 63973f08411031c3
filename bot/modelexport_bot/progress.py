"""How a run tells what it is doing. Everything goes to stderr; stdout belongs to the result."""

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBar

from modelexport_bot.credentials import redact


class Progress(Protocol):
    """What the steps of a job report to."""

    def step(self, name: str, detail: str = "") -> None:
        """A step begins."""

    def advance(self, done: int, total: int, unit: str) -> None:
        """``done`` of ``total`` units of the current step."""

    def status(self, line: str) -> None:
        """What is going on right now; replaces the line before."""

    def note(self, message: str) -> None:
        """Something the user should read."""

    def detail(self, line: str) -> None:
        """A line for those who asked for all of them (``--verbose``)."""


class Silent:
    """Says nothing: for jobs that run behind a server, and for tests."""

    def step(self, name: str, detail: str = "") -> None: ...
    def advance(self, done: int, total: int, unit: str) -> None: ...
    def status(self, line: str) -> None: ...
    def note(self, message: str) -> None: ...
    def detail(self, line: str) -> None: ...


class Terminal:
    """Lines for a log, and a live bar below them on a terminal."""

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._verbose = verbose
        self._bar = RichBar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Terminal":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, name: str, detail: str = "") -> None:
        """A line in the log, and a fresh bar."""
        self._forget_bar()
        self._console.print(f"[bold]{escape(name):<9}[/] {escape(redact(detail))}", soft_wrap=True)

    def advance(self, done: int, total: int, unit: str) -> None:
        """Moves the bar; only on a terminal."""
        if self._task is None:
            self._task = self._bar.add_task(unit, total=total)
        self._bar.update(self._task, completed=done, total=total, description=unit)

    def status(self, line: str) -> None:
        """On a terminal the line beside the spinner, in a log a line of its own."""
        if not self._console.is_terminal:
            self._console.print(f"{'':<9} {escape(redact(line))}", soft_wrap=True)
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=None)
        self._bar.update(self._task, description=escape(redact(line))[: max(20, self._console.width - 30)])

    def note(self, message: str) -> None:
        """A line in the log that stands out."""
        self._console.print(f"[yellow]{'note':<9}[/] {escape(redact(message))}", soft_wrap=True)

    def detail(self, line: str) -> None:
        """A dim line, with ``--verbose``."""
        if self._verbose:
            self._console.print(f"[dim]{escape(redact(line))}[/]", soft_wrap=True)

    def _forget_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
