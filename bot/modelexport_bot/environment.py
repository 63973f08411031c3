"""The exporter's environment: built once from ``exporter.lock``, found again by its content.

Two layers, because they change at different speeds:

- the *dependency layer* (torch and friends; gigabytes) is keyed by the lock file, the Python version and the platform;
- the *code layer* (our own ``modelexport`` package; kilobytes) is keyed by its files and the dependency layer. It is a
  virtual environment without pip that holds a copy of the package and a ``.pth`` file pointing to the layer below.

So a second checkout of the project reuses the gigabytes while it runs its own code.

How a build can be interrupted at any moment, SIGKILL included, without leaving something that looks finished: every
build has a directory of its own that no other build ever touches (virtual environments hold their own path, so they
cannot be built elsewhere and moved). A layer *is* the build that the one-line file ``current`` names, and that file is
written, by an atomic rename, after the last check has passed. A file lock keeps two builds from doing the same work;
correctness does not hang on it. Whoever holds the lock removes what earlier, interrupted builds have left.
"""

import contextlib
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import time
import uuid
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from modelexport.contract.errors import EnvironmentFailedError
from modelexport_bot.pip import Pip
from modelexport_bot.progress import Progress

LOCK_FILE = Path(__file__).with_name("exporter.lock")

_KEPT_UNUSED = 30 * 24 * 3600  # seconds
_TORCH = re.compile(r"^torch\s*[=<>~!@;]", re.IGNORECASE)


def prepare(cache: Path, *, ready: Path | None, torch_index: str | None, progress: Progress) -> Path:
    """The interpreter that runs the exporter, its environment built first if need be.

    Args:
        cache: the directory that holds the environments (``MODELEXPORT_CACHE``, or the user's cache).
        ready: an interpreter to use instead (``MODELEXPORT_EXPORTER_PYTHON``); ``modelexport[engine]`` must be
            installed in it.
        torch_index: index to take torch from (``MODELEXPORT_TORCH_INDEX``); None means pip's configuration, then
            :data:`~modelexport_bot.pip.TORCH_CPU_INDEX`.
        progress: told about every step.

    Raises:
        EnvironmentFailedError: with the last lines of what failed, and what to do.
    """
    if ready is not None:
        _must_run_modelexport(ready)
        return ready
    environments = cache / "environments"
    dependencies = build_dependencies(environments, LOCK_FILE, torch_index=torch_index, progress=progress)
    return build_code(environments, dependencies, progress=progress)


def prune(cache: Path, python: Path) -> list[Path]:
    """Remove the code layers that nobody has asked for in a month; returns them.

    Whoever prepares an environment marks its layers as used. One that is being built is left alone: its lock is held.

    Args:
        cache: as of :func:`prepare`.
        python: an interpreter whose layer stays.
    """
    removed = []
    for layer in sorted((cache / "environments").glob("code-*/")):
        if not python.is_relative_to(layer) and _unused_for(layer) > _KEPT_UNUSED:
            with contextlib.suppress(Timeout), FileLock(layer.with_suffix(".lock"), timeout=0):
                if _unused_for(layer) > _KEPT_UNUSED:  # as before we had the lock
                    (layer / "current").unlink(missing_ok=True)
                    shutil.rmtree(layer, ignore_errors=True)
                    removed.append(layer)
    return removed


def _unused_for(layer: Path) -> float:
    """Seconds since the layer was made or asked for."""
    current = layer / "current"
    with contextlib.suppress(FileNotFoundError):
        return time.time() - (current if current.exists() else layer).stat().st_mtime
    return 0


# --- layers ----------------------------------------------------------------------------------------------------------


def _python_in(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _finished_build(layer: Path) -> Path | None:
    """The build that ``current`` names, if its interpreter still runs (the base Python may have been removed)."""
    with contextlib.suppress(OSError):
        build = layer / (layer / "current").read_text().strip()
        if build != layer and _python_in(build).exists():
            return build
    return None


def _layer(layer: Path, build: Callable[[Path], None], progress: Progress) -> Path:
    """The finished build of a layer; made by ``build(directory)`` if there is none."""
    if found := _finished_build(layer):
        with contextlib.suppress(OSError):  # somebody else's cache: read-only
            os.utime(layer / "current")
        return found
    layer.mkdir(parents=True, exist_ok=True)
    lock = FileLock(layer.with_suffix(".lock"))
    with _waiting(lock, progress):
        if found := _finished_build(layer):  # built while we waited
            return found
        for leftover in layer.iterdir():
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        directory = layer / uuid.uuid4().hex[:12]
        try:
            build(directory)
            _publish(layer, directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return directory


@contextlib.contextmanager
def _waiting(lock: FileLock, progress: Progress) -> Iterator[None]:
    if not _acquired_at_once(lock):
        progress.status("another process builds the exporter's environment; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _acquired_at_once(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    return True


def _publish(layer: Path, directory: Path) -> None:
    marker = layer / f".current-{directory.name}"
    with marker.open("w") as file:
        file.write(directory.name + "\n")
        file.flush()
        os.fsync(file.fileno())
    marker.replace(layer / "current")


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


# --- the dependency layer --------------------------------------------------------------------------------------------


def dependency_key(lock_file: Path) -> str:
    """What a dependency layer is found by: the lock's bytes, the Python version, the platform."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return _digest(lock_file.read_bytes(), python.encode(), sysconfig.get_platform().encode())[:24]


def build_dependencies(environments: Path, lock_file: Path, *, torch_index: str | None, progress: Progress) -> Path:
    """The virtual environment that holds exactly what the lock file names."""

    def build(directory: Path) -> None:
        progress.step("setup", "building the exporter's environment (once; about 1 GB with PyTorch for CPU)")
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(directory)
        pip = Pip(_python_in(directory), directory / "requirements.txt", progress)
        pip.bootstrap()
        lines = lock_file.read_text().splitlines()
        torch = [line for line in lines if _TORCH.match(line)]
        if torch:
            pip.install_torch(torch, torch_index)
        pip.install([line for line in lines if not _TORCH.match(line)])
        pip.check()

    return _layer(environments / f"dependencies-{dependency_key(lock_file)}", build, progress)


# --- the code layer --------------------------------------------------------------------------------------------------


def build_code(environments: Path, dependencies: Path, *, progress: Progress) -> Path:
    """The interpreter of a small environment that runs the bot's own ``modelexport`` over the dependency layer."""
    distribution = importlib.metadata.distribution("modelexport")
    package = _package_directory()
    files = sorted(path for path in package.rglob("*") if path.is_file() and path.suffix not in {".pyc", ".pyo"})
    parts = [part for path in files for part in (path.relative_to(package).as_posix().encode(), path.read_bytes())]
    key = _digest(distribution.version.encode(), os.fspath(dependencies).encode(), *parts)[:24]

    def build(directory: Path) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(directory)
        site = _site_packages(directory)
        for path in files:
            target = site / "modelexport" / path.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (site / "exporter-dependencies.pth").write_text(f"{_site_packages(dependencies)}\n")
        _write_dist_info(site, distribution)
        _write_console_script(directory)
        _must_run_modelexport(_python_in(directory))

    return _python_in(_layer(environments / f"code-{key}", build, progress))


def _package_directory() -> Path:
    spec = importlib.util.find_spec("modelexport")
    if spec is None or spec.origin is None:
        raise EnvironmentFailedError(
            "The package modelexport is not installed beside modelexport-bot. Install both: pip install modelexport "
            "modelexport-bot"
        )
    return Path(spec.origin).parent


def _site_packages(environment: Path) -> Path:
    variables = {"base": os.fspath(environment), "platbase": os.fspath(environment)}
    return Path(sysconfig.get_path("purelib", scheme="venv", vars=variables))


def _write_dist_info(site: Path, distribution: importlib.metadata.Distribution) -> None:
    """Enough for importlib.metadata: name, version and the entry point."""
    info = site / f"modelexport-{distribution.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(distribution.read_text("METADATA") or "")
    (info / "entry_points.txt").write_text("[console_scripts]\nmodelexport = modelexport.cli:main\n")
    (info / "INSTALLER").write_text("modelexport-bot\n")
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path in sorted(site.rglob("*")):
        if path.is_file() and path.parts[len(site.parts)].startswith("modelexport"):
            rows.writerow((path.relative_to(site).as_posix(), "", ""))
    (info / "RECORD").write_text(record.getvalue())


def _write_console_script(environment: Path) -> None:
    """``modelexport`` beside ``python``, isolated from PYTHONPATH and the user's site as in a bot run."""
    python = _python_in(environment)
    if os.name == "nt":
        (python.parent / "modelexport.cmd").write_text(f'@"{python}" -I -m modelexport %*\n')
        return
    script = python.parent / "modelexport"
    script.write_text(f'#!/bin/sh\nexec "{python}" -I -m modelexport "$@"\n')
    script.chmod(0o755)


def _must_run_modelexport(python: Path) -> None:
    probe = "import importlib.metadata as m; print(m.version('modelexport'))"
    try:
        subprocess.run(
            [python, "-I", "-c", probe],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise EnvironmentFailedError(
            f"{python} cannot run the exporter ({'; '.join(said)}). MODELEXPORT_EXPORTER_PYTHON must point at a "
            "Python in which modelexport[engine] is installed; unset it to let modelexport-bot build the environment "
            "itself."
        ) from error
