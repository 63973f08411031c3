"""How a running export shows itself: JSON lines for programs, a progress display for people."""

import sys
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from modelexport.contract.errors import ModelExportError
from modelexport.contract.events import Failed, Finished, Note, Progress, Stage, StageName


class Display(Protocol):
    """Shows events; a context manager, because a terminal must be left as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def emit(self, event: Stage | Progress | Note) -> None:
        """Show one event of the running export."""

    def finished(self, output: str, manifest: str) -> None:
        """The folder is in place."""

    def failed(self, error: ModelExportError) -> None:
        """The export ended without a folder."""


class JsonLines:
    """One event a line. ``progress`` events that would not move the bar by a percent are left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._percent = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def emit(self, event: Stage | Progress | Note) -> None:
        if isinstance(event, Stage):
            self._percent = -1
        if isinstance(event, Progress):
            percent = 100 * event.done // max(event.total, 1)
            if percent == self._percent:
                return
            self._percent = percent
        self._line(event)

    def finished(self, output: str, manifest: str) -> None:
        self._line(Finished(output=output, manifest=manifest))

    def failed(self, error: ModelExportError) -> None:
        self._line(Failed(code=error.code, message=error.message))

    def _line(self, event: Stage | Progress | Note | Finished | Failed) -> None:
        print(event.model_dump_json(), file=self._stream, flush=True)


_TITLES = {
    StageName.INSPECT: "Read the checkpoint",
    StageName.LOAD: "Load the model",
    StageName.TRACE: "Trace",
    StageName.PROJECT: "Tag every node with its module",
    StageName.WRITE: "Write",
    StageName.BUNDLE: "Copy config, tokenizer and processor",
    StageName.CHECK: "Compare with PyTorch, load with Optimum",
}


class Terminal:
    """A line per stage with a spinner and, where there is something to count, a bar. On stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar = Bar(
            SpinnerColumn(finished_text="[green]✓"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            console=self.console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def emit(self, event: Stage | Progress | Note) -> None:
        if isinstance(event, Stage):
            self._end_stage()
            detail = f" [dim]{escape(event.detail)}" if event.detail else ""
            self._task = self._bar.add_task(f"{_TITLES[event.stage]}{detail}", total=None)
        elif isinstance(event, Progress):
            if self._task is not None:
                self._bar.update(self._task, completed=event.done, total=event.total)
        else:
            self._bar.console.print(f"[yellow]note[/] {escape(event.message)}", highlight=False)

    def finished(self, output: str, manifest: str) -> None:  # noqa: ARG002  a person looks into the folder
        self._end_stage()
        self._bar.stop()
        self.console.print(f"[green]Done.[/] {output}", highlight=False)

    def failed(self, error: ModelExportError) -> None:
        self._bar.stop()
        self.console.print(f"[red]{error.code.value}[/]: {escape(error.message)}", highlight=False, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._task is not None:
            self._bar.update(self._task, total=1, completed=1)


def display(*, events: bool) -> Display:
    """The one that the command line asked for."""
    return JsonLines(sys.stdout) if events else Terminal()
