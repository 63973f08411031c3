"""The JSON lines that the exporter prints on stdout while it works (``--events``): one event a line.

The last line of every run is ``finished`` or ``failed``; a warm exporter says ``ready`` before and after each.
Everything that is not an event (warnings of libraries, say) goes to stderr.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from modelexport.contract.errors import ErrorCode


class StageName(StrEnum):
    """The steps of one export, in order."""

    INSPECT = "inspect"
    LOAD = "load"
    TRACE = "trace"
    PROJECT = "project"
    WRITE = "write"
    BUNDLE = "bundle"
    CHECK = "check"


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Stage(_Event):
    """A stage begins; ``detail`` says with what, in a few words."""

    event: Literal["stage"] = "stage"
    stage: StageName
    detail: str = ""


class Progress(_Event):
    """``done`` of ``total`` units of the current stage."""

    event: Literal["progress"] = "progress"
    stage: StageName
    done: int
    total: int
    unit: Literal["bytes", "cases", "graphs"] = "bytes"


class Note(_Event):
    """A deviation that the user should know of; the same sentence stands in the manifest."""

    event: Literal["note"] = "note"
    message: str


class Ready(_Event):
    """A warm exporter takes a job: its engine is imported, and the job before is over (:mod:`modelexport.jobs`)."""

    event: Literal["ready"] = "ready"


class Finished(_Event):
    """The output folder is complete and in place."""

    event: Literal["finished"] = "finished"
    output: str
    manifest: str


class Failed(_Event):
    """The run ended without output."""

    event: Literal["failed"] = "failed"
    code: ErrorCode
    message: str


Event = Annotated[Stage | Progress | Note | Ready | Finished | Failed, Field(discriminator="event")]

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str) -> Stage | Progress | Note | Ready | Finished | Failed | None:
    """The event on one line of the exporter's stdout, or None where the line is none (a stray print)."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None
