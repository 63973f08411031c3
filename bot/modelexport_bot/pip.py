"""pip in a virtual environment: wheels only, nothing resolved, every line of its output a sign of life."""

import os
import platform
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from modelexport.contract.errors import EnvironmentFailedError
from modelexport_bot import supervisor
from modelexport_bot.credentials import redact
from modelexport_bot.progress import Progress

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU wheels, asked on Linux when pip's configuration knows no ``+cpu`` build."""

_NO_SUCH_VERSION = re.compile(r"No matching distribution found|Could not find a version that satisfies", re.IGNORECASE)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class Pip:
    """pip of one environment.

    Args:
        python: the environment's interpreter.
        requirements: where to write the requirements that it is given.
        progress: told about every line of its output.
    """

    def __init__(self, python: Path, requirements: Path, progress: Progress) -> None:
        self._python = python
        self._requirements = requirements
        self._progress = progress

    def bootstrap(self) -> None:
        """Pip itself, from the wheel that comes with Python. (venv could do it, but unsupervised.)"""
        self._run(["ensurepip", "--default-pip"], "set up pip")

    def install_torch(self, requirements: Sequence[str], index: str | None) -> None:
        """Torch first and apart, as its CPU build has an index of its own on Linux.

        The requirement pins the local version ``+cpu`` there, so no index can make pip take the CUDA build.
        """
        if index:
            self.install(requirements, "--index-url", index)
            return
        try:
            self.install(requirements)
        except NoSuchVersionError:
            self._progress.status(f"pip's configuration has no CPU build of torch; taking it from {TORCH_CPU_INDEX}")
            self.install(requirements, "--index-url", TORCH_CPU_INDEX)

    def install(self, requirements: Sequence[str], *options: str) -> None:
        """``pip install`` of these lines. Raises EnvironmentFailedError."""
        self._requirements.write_text("\n".join(requirements) + "\n")
        flags = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-color"]
        flags += ["--progress-bar", "off", "--no-warn-script-location"]
        self._run(
            ["pip", "install", *flags, *options, "-r", os.fspath(self._requirements)], "install the exporter's packages"
        )

    def check(self) -> None:
        """``pip check``: the lock is complete and consistent. Raises EnvironmentFailedError."""
        self._run(["pip", "check", "--disable-pip-version-check"], "verify the exporter's packages")

    def _run(self, arguments: Sequence[str], purpose: str) -> None:
        argv = supervisor.command([self._python, "-I", "-m", *arguments])
        environment = {k: v for k, v in os.environ.items() if not _SECRET_NAME.search(k)} | {"PIP_USER": "0"}
        tail: deque[str] = deque(maxlen=25)
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                tail.append(redact(line.rstrip()))
                self._progress.detail(tail[-1])
                if told := _in_few_words(tail[-1]):
                    self._progress.status(told)
            status = process.wait()
        finally:
            assert process.stdin is not None
            process.stdin.close()  # the supervisor kills pip if it still runs (Ctrl-C)
            process.wait()
        if status:
            output = "\n".join(tail)
            error = NoSuchVersionError if _NO_SUCH_VERSION.search(output) else EnvironmentFailedError
            raise error(
                f"Could not {purpose}: {arguments[0]} ended with status {status}. Its last lines:\n{output}\n"
                "Check the network and pip's configuration (pip config list), that this Python "
                f"({platform.python_version()}) is 3.11 to 3.13, and the free disk space (2 GB are needed), then run "
                "modelexport-bot setup again. MODELEXPORT_TORCH_INDEX sets where torch comes from, "
                "MODELEXPORT_EXPORTER_PYTHON points at a ready environment instead."
            )


class NoSuchVersionError(EnvironmentFailedError):
    """pip knows no such version on the indexes it asked."""


def _in_few_words(line: str) -> str | None:
    """One of pip's lines, fit for a status line; None for those that say nothing new."""
    words = line.split()
    match words:
        case ["Collecting", requirement, *_]:
            return f"looking up {requirement}"
        case ["Downloading" | "Using", *_]:
            return line.strip()
        case ["Installing", "collected", "packages:", *names]:
            return f"installing {len(names)} packages"
        case ["Successfully", "installed", *names]:
            return f"installed {len(names)} packages"
        case _:
            return None
