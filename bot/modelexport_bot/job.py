"""The job: resolve → fetch → export → publish.

Each step can be repeated, and what passes between them is plain data, so that a durable runner can take the four
methods one by one, as well as a command line :meth:`Job.run` as a whole.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelexport.contract import Event, Note, Stage
from modelexport.contract import Progress as ExporterProgress
from modelexport.contract.errors import DiskFullError, HubUnavailableError, OutputExistsError
from modelexport_bot import environment, fetch, policy, publish, resolve, sandbox, scratch
from modelexport_bot.exporters import Exporters
from modelexport_bot.hub import Hub
from modelexport_bot.progress import Progress, Silent
from modelexport_bot.publish import SourceMovedError
from modelexport_bot.resolve import Plan, RepoOptionsInvalidError
from modelexport_bot.result import Result
from modelexport_bot.settings import Settings

_PLANS = 3  # how often a run plans afresh because the source moved under it


@dataclass
class Job:
    """One operator's job, and what its steps share.

    Attributes:
        exporters: shared by jobs that should find the exporter warm; who makes them closes them.
    """

    settings: Settings
    progress: Progress = field(default_factory=Silent)
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    exporters: Exporters = field(default_factory=Exporters)
    hub: Hub = field(init=False)

    _python: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.hub = Hub.of(self.settings)

    def run(self, repo: str) -> Result:
        """The whole job on one repo.

        Raises:
            ModelExportError: one of the classes of ``modelexport.contract``. Nothing wrong is open on the Hub then, and
                running again completes what was begun.
        """
        output = self.settings.output
        if output is not None and output.exists():
            raise OutputExistsError(f"{output} exists already. Remove it, or give --output another name.")
        for _ in range(_PLANS):
            with scratch.for_job(self.settings.cache) as own, contextlib.suppress(SourceMovedError):
                plan = self.resolve(repo)
                folder = self._exported(plan, own) if plan.decision.needs_export else None
                return self.publish(plan, folder)
        raise HubUnavailableError(f"{repo} changed {_PLANS} times while it was being exported. Run it again later.")

    def status(self, repo: str) -> Result:
        """What a run would do, and why. Writes nothing."""
        looking = replace(self, settings=replace(self.settings, dry_run=True))
        plan = looking.resolve(repo)
        told = plan.decision
        return Result(
            told.outcome, plan.repo, told.reason, plan.sha or None, told.num, told.url, warnings=plan.warnings
        )

    # the four steps

    def resolve(self, repo: str) -> Plan:
        """What is to be done, pinned to a commit. An owner whose options cannot be read is told, once."""
        self.progress.step("resolve", repo)
        try:
            plan = resolve.resolve(self.hub, repo, self.settings)
        except RepoOptionsInvalidError as error:
            publish.report_invalid_options(self.hub, error, self.settings)
            raise
        for warning in plan.warnings:
            self.progress.note(warning)
        self.progress.status(plan.decision.reason)
        return plan

    def warm_up(self) -> None:
        """Let an exporter import its engine while the snapshot is fetched; its environment is built if need be."""
        self.exporters.start_one(self._interpreter(), self.inherited)

    def fetch(self, plan: Plan, folder: Path) -> Path:
        """The snapshot: the files the export needs, at the plan's commit, verified."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            return fetch.fetch(self.hub, plan.repo, plan.sha, plan.snapshot, folder, self.progress)
        except OSError as error:
            raise _disk_full(error, folder) from error

    def export(self, plan: Plan, snapshot: Path, folder: Path) -> Path:
        """The ``onnx/`` folder, made by the exporter in its own process; a copy stays at ``settings.output``."""
        given, options = self.settings, plan.options
        python = self._interpreter()
        self.progress.step("export", f"{plan.repo} at {plan.sha[:7]}")
        wishes = {"--task": options.task, "--opset": options.opset, "--dtype": options.dtype, "--atol": options.atol}
        arguments = [os.fspath(snapshot), os.fspath(folder), "--overwrite"]
        arguments += ["--source-repo", plan.repo, "--source-sha", plan.sha]
        arguments += [part for name, value in wishes.items() if value is not None for part in (name, str(value))]
        arguments += ["--max-memory", str(given.max_memory)] if given.max_memory is not None else []
        code = policy.may_run_code_of(plan.repo, given)
        arguments += ["--trust-remote-code"] if code else []
        limits = sandbox.Limits(given.timeout, given.max_memory)
        with self.exporters.lent(python, self.inherited) as exporter:
            try:
                exporter.export(arguments, limits=limits, on_event=self._told, on_line=self.progress.detail)
            finally:
                if code:  # no other repo's job meets what it may have left
                    exporter.close()
        if given.output is not None:
            shutil.rmtree(given.output, ignore_errors=True)
            shutil.copytree(folder, given.output)
        return folder

    def publish(self, plan: Plan, folder: Path | None) -> Result:
        """The pull request as decided. Raises SourceMovedError when the plan no longer fits."""
        self.hub.renew()  # a short-lived token may have expired during the export
        result = publish.publish(self.hub, plan, folder, self.settings, self.progress)
        kept = self.settings.output if folder is not None else None
        return replace(result, output=os.fspath(kept)) if kept else result

    def _exported(self, plan: Plan, own: Path) -> Path:
        try:
            self.warm_up()
            return self.export(plan, self.fetch(plan, own / "snapshot"), own / "onnx")
        finally:
            self.exporters.settle()

    def _interpreter(self) -> Path:
        if self._python is None:
            given = self.settings
            self._python = environment.prepare(
                given.cache, ready=given.exporter_python, torch_index=given.torch_index, progress=self.progress
            )
        return self._python

    def _told(self, event: Event) -> None:
        match event:
            case Stage(stage=stage, detail=detail):
                self.progress.step(f"  {stage}", detail)
            case ExporterProgress(done=done, total=total, unit=unit):
                self.progress.advance(done, total, unit)
            case Note(message=message):
                self.progress.note(message)
            case _:
                pass


def _disk_full(error: OSError, folder: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return DiskFullError(
        f"The disk that holds {folder.parent} or the download cache is full. Free some space and run it again."
    )
