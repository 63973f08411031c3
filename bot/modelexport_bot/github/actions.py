"""The GitHub Actions runtime: outputs, the job summary and annotations.

All of it is files and lines in the formats that GitHub documents under "Workflow commands"; outside of a workflow every
function does nothing.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path

from modelexport.contract.errors import ModelExportError
from modelexport_bot.credentials import redact
from modelexport_bot.result import Outcome, Result

_LEVEL = {
    Outcome.DECLINED: "notice",
    Outcome.BLOCKED: "warning",
    Outcome.SKIPPED: "notice",
    Outcome.CLOSED: "notice",
}


class Workflow:
    """The workflow we run in, if we do.

    Args:
        environment: the process's.
        annotate: whether annotations may be printed; they would spoil a stdout that belongs to JSON.
    """

    def __init__(self, environment: Mapping[str, str], *, annotate: bool = True) -> None:
        self._active = environment.get("GITHUB_ACTIONS") == "true"
        self._annotates = annotate
        self._output = environment.get("GITHUB_OUTPUT")
        self._summary = environment.get("GITHUB_STEP_SUMMARY")

    def finished(self, result: Result) -> None:
        """Outputs and summary of a run that ended in an outcome."""
        if not self._active:
            return
        self._set_outputs(
            {
                "outcome": result.outcome.value,
                "pull-request-number": str(result.pull_request or ""),
                "pull-request-url": result.url or "",
                "sha": result.sha or "",
                "result": result.to_json(),
            }
        )
        for warning in result.warnings:
            self._annotate("warning", warning)
        if level := _LEVEL.get(result.outcome):
            self._annotate(level, result.reason)
        self._add_to_summary(_summary_of(result))

    def failed(self, error: ModelExportError) -> None:
        """Outputs, summary and an error annotation of a run that ended in a typed error."""
        if not self._active:
            return
        self._set_outputs({"outcome": "failed", "error-code": error.code.value})
        self._annotate("error", error.message, title=error.code.value)
        self._add_to_summary(f"### modelexport: {error.code.value}\n\n{redact(error.message)}\n")

    def _annotate(self, level: str, message: str, title: str = "modelexport") -> None:
        """An annotation on the workflow run; ``level`` is notice, warning or error."""
        if self._annotates:
            print(f"::{level} title={_property(title)}::{_data(redact(message))}", flush=True)

    def _set_outputs(self, values: Mapping[str, str]) -> None:
        if self._output:
            with Path(self._output).open("a", encoding="utf-8") as file:
                for name, value in values.items():
                    end = f"end-{uuid.uuid4().hex}"  # a delimiter that no value can contain
                    file.write(f"{name}<<{end}\n{value}\n{end}\n")

    def _add_to_summary(self, markdown: str) -> None:
        if self._summary:
            with Path(self._summary).open("a", encoding="utf-8") as file:
                file.write(markdown + "\n")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _summary_of(result: Result) -> str:
    link = f" [#{result.pull_request}]({result.url})" if result.url else ""
    lines = [f"### modelexport: {result.repo} {result.outcome.value}{link}", "", result.reason, ""]
    lines += [f"> {warning}" for warning in result.warnings]
    if result.files:
        lines += ["", "| file | bytes | sha256 |", "|---|---:|---|"]
        lines += [f"| `{file.path}` | {file.size:,} | `{file.sha256[:12]}` |" for file in result.files]
    return "\n".join(lines) + "\n"
