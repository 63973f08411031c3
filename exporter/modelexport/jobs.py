"""The warm exporter: a process that has imported the engine and forks a fresh child for every job.

Importing torch, transformers and Optimum takes longer than exporting a small model. Here it is paid once:

    ← {"event": "ready"}                                            when the imports are done, and after every job
    → {"arguments": ["model/", "out/", "--task", "fill-mask"]}      one job a line on stdin
    ← {"event": "stage", ...} ... {"event": "finished", ...}        the job's events, as of ``export --events``

A ``ready`` after a job says that its process is gone. Jobs run one after the other, each in a process that was forked
before any other job's weights were there, so they cannot touch each other. End of input ends the server; the child of a
running job dies with it.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import IO

from modelexport import isolation
from modelexport.contract.errors import ErrorCode, ExporterCrashedError
from modelexport.contract.events import Failed, Ready

RunExport = Callable[[list[str]], None]
"""Runs ``modelexport export ARGUMENTS --events`` in this process and exits with its status."""


def serve(run_export: RunExport, requests: IO[str], events: IO[str]) -> None:
    """Serve until ``requests`` ends.

    Args:
        run_export: called in the forked child.
        requests, events: text streams, one JSON object a line.
    """
    _say(Ready(), events)
    for line in requests:
        arguments = _arguments(line)
        if arguments is None:
            wrong = "A job is a JSON object with the key arguments, a list of strings."
            _say(Failed(code=ErrorCode.USAGE, message=wrong), events)
        else:
            _run(run_export, arguments, events)
        _say(Ready(), events)


def _say(event: Ready | Failed, events: IO[str]) -> None:
    print(event.model_dump_json(), file=events, flush=True)


def _arguments(line: str) -> list[str] | None:
    try:
        arguments = json.loads(line)["arguments"]
    except (ValueError, TypeError, KeyError):
        return None
    fits = isinstance(arguments, list) and all(isinstance(part, str) for part in arguments)
    return arguments if fits else None


def _run(run_export: RunExport, arguments: list[str], events: IO[str]) -> None:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        isolation.die_with(parent)
        status = 1
        try:
            sys.stdin.close()
            run_export(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):  # it had no chance to say anything
        error = isolation.died(-os.WTERMSIG(ended))
        _say(Failed(code=error.code, message=error.message), events)
    elif os.WEXITSTATUS(ended) == 1:  # no typed error has this status: Python's own for an uncaught exception
        crash = ExporterCrashedError("The export failed in a way it does not know; its traceback is on stderr.")
        _say(Failed(code=crash.code, message=crash.message), events)
