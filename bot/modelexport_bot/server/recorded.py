"""What of a job is written down: JSON, and nothing that is secret.

dbos would pickle by default, and a pickle cannot be read by a newer version of the classes in it, nor looked at, nor
trusted.

A server may be upgraded between two steps of a job, so what is written here is read by later versions: fields of
:class:`~modelexport_bot.resolve.Plan` and of what it holds may be added with a default, never renamed or removed.
"""

import json
from typing import Any

from dbos import Serializer
from dbos import error as dbos_error
from pydantic import TypeAdapter

from modelexport.contract import ERRORS, ErrorCode, ModelExportError
from modelexport_bot.credentials import redact
from modelexport_bot.resolve import Plan

_PLAN = TypeAdapter(Plan)
_ERROR = "$error"

Json = dict[str, Any]


class RecordedError(Exception):
    """An unexpected error of an earlier attempt at a step, as it was written down."""


class JsonSerializer(Serializer):
    """JSON for dbos. Errors are a code and a message."""

    def name(self) -> str:
        """What is recorded beside each value; a value is only ever read by the serializer that wrote it."""
        return "modelexport_json"

    def serialize(self, data: Any) -> str:
        """Raises TypeError for anything that is neither JSON nor an error."""
        return json.dumps(data, default=_error_to_json, ensure_ascii=False)

    def deserialize(self, serialized_data: str) -> Any:
        """The same value; an error as an instance that can be raised."""
        return json.loads(serialized_data, object_hook=_error_from_json)


def plan_to_json(plan: Plan) -> Json:
    """A plan, as a step returns it."""
    found: Json = _PLAN.dump_python(plan, mode="json")
    return found


def plan_from_json(recorded: Json) -> Plan:
    """The plan that a step returned, this version's or an earlier one's."""
    return _PLAN.validate_python(recorded)


def typed(error: Exception) -> ModelExportError | None:
    """The failure that a user can act on, if that is what the error is or stands for."""
    if isinstance(error, dbos_error.DBOSMaxStepRetriesExceeded):
        error = error.errors[-1]
    return error if isinstance(error, ModelExportError) else None


def _error_to_json(value: Any) -> Json:
    if not isinstance(value, Exception):
        raise TypeError(f"{type(value).__name__} is not to be recorded")
    if known := typed(value):
        return {_ERROR: {"code": known.code.value, "message": redact(known.message)}}
    return {_ERROR: {"code": None, "message": redact(f"{type(value).__name__}: {value}")}}


def _error_from_json(found: Json) -> Any:
    if found.keys() != {_ERROR}:
        return found
    error = found[_ERROR]
    known = error["code"] in set(ErrorCode)
    return ERRORS[ErrorCode(error["code"])](error["message"]) if known else RecordedError(error["message"])
