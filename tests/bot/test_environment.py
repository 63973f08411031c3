"""The exporter's environment: built once, never half, found again. With a lock of small real packages."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from modelexport.contract.errors import EnvironmentFailedError
from modelexport_bot import environment
from modelexport_bot.environment import build_code, build_dependencies
from modelexport_bot.pip import TORCH_CPU_INDEX, NoSuchVersionError, Pip
from modelexport_bot.progress import Silent

SMALL = "idna==3.20\nmdurl==0.1.2\n"


@pytest.fixture(autouse=True)
def _pip_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "exporter.lock"
    file.write_text(SMALL)
    return file


def _build(environments: Path, lock: Path, **options: str | None) -> Path:
    return build_dependencies(environments, lock, torch_index=options.get("torch_index"), progress=Silent())


def _builds(environments: Path) -> list[Path]:
    return sorted(path for layer in environments.glob("dependencies-*/") for path in layer.iterdir() if path.is_dir())


def _imports(python: Path, *modules: str) -> bool:
    done = subprocess.run([python, "-I", "-c", f"import {', '.join(modules)}"], check=False, capture_output=True)
    return done.returncode == 0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A finished dependency layer that several tests look at: its directory, the environments', and its lock."""
    directory = tmp_path_factory.mktemp("environment")
    lock = directory / "exporter.lock"
    lock.write_text(SMALL)
    return _build(directory / "e", lock), directory / "e", lock


def test_it_holds_exactly_the_lock_and_is_found_again(built: tuple[Path, Path, Path]) -> None:
    first, environments, lock = built
    assert _imports(first / "bin/python", "idna", "mdurl")
    assert not _imports(first / "bin/python", "rich")
    assert _build(environments, lock) == first


def test_another_lock_python_or_platform_is_another_environment(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {environment.dependency_key(lock)}
    monkeypatch.setattr(environment.sysconfig, "get_platform", lambda: "another")
    keys.add(environment.dependency_key(lock))
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.99.0")
    keys.add(environment.dependency_key(lock))
    lock.write_text("idna==3.20\n")
    keys.add(environment.dependency_key(lock))
    assert len(keys) == 4


def test_a_version_that_does_not_exist_leaves_nothing_that_counts(tmp_path: Path, lock: Path) -> None:
    lock.write_text(SMALL + "mdurl-no-such-package-at-all==9.9\n")
    with pytest.raises(EnvironmentFailedError, match="mdurl-no-such-package-at-all") as caught:
        _build(tmp_path / "e", lock)
    assert "modelexport-bot setup" in caught.value.message
    assert _builds(tmp_path / "e") == []


def test_an_incomplete_lock_is_noticed(tmp_path: Path, lock: Path) -> None:
    lock.write_text("markdown-it-py==4.3.0\n")  # which needs mdurl
    with pytest.raises(EnvironmentFailedError, match="mdurl"):
        _build(tmp_path / "e", lock)
    assert _builds(tmp_path / "e") == []


def test_a_build_killed_at_any_moment_is_built_again(tmp_path: Path, lock: Path) -> None:
    environments = tmp_path / "e"
    for delay in (0.3, 0.8, 2.0):
        process = _build_in_another_process(environments, lock)
        time.sleep(delay)
        process.kill()
        process.wait()
        for layer in environments.glob("dependencies-*/"):
            build = environment._finished_build(layer)
            assert build is None or _imports(build / "bin/python", "idna", "mdurl")
    built = _build(environments, lock)
    assert _imports(built / "bin/python", "idna", "mdurl")
    assert environment._finished_build(built.parent) == built


def test_what_a_killed_build_leaves_running_cannot_spoil_the_next(tmp_path: Path, lock: Path) -> None:
    """pip goes down with us; and if it did not, it would write into a directory that nobody will ever use."""
    environments = tmp_path / "e"
    process = _build_in_another_process(environments, lock)
    deadline = time.monotonic() + 20
    while not (found := [build for build in _builds(environments) if (build / "requirements.txt").exists()]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert _build(environments, lock) not in found


def test_two_builds_at_once_build_once(tmp_path: Path, lock: Path) -> None:
    processes = [_build_in_another_process(tmp_path / "e", lock) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0].split()[-1] for process in processes}
    assert len(printed) == 1
    assert len(_builds(tmp_path / "e")) == 1


def test_ctrl_c_leaves_nothing(tmp_path: Path, lock: Path) -> None:
    process = _build_in_another_process(tmp_path / "e", lock)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert [b for b in _builds(tmp_path / "e") if environment._finished_build(b.parent) != b] == []


def test_an_environment_whose_python_is_gone_does_not_count(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "build/bin").mkdir(parents=True)
    (layer / "build/bin/python").symlink_to(sys.executable)
    (layer / "current").write_text("build\n")
    assert environment._finished_build(layer) == layer / "build"
    (layer / "build/bin/python").unlink()
    assert environment._finished_build(layer) is None


def _build_in_another_process(environments: Path, lock: Path) -> subprocess.Popen[str]:
    code = f"""
        from pathlib import Path
        from modelexport_bot.environment import build_dependencies
        from modelexport_bot.progress import Silent
        print(build_dependencies(Path({str(environments)!r}), Path({str(lock)!r}), torch_index=None, progress=Silent()))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip was asked for, one entry a call; the local version is not to be had from pip's own configuration."""
    calls: list[list[str]] = []

    def run(self: Pip, arguments: list[str], purpose: str) -> None:
        if arguments[0] != "pip":
            return
        lines = self._requirements.read_text().splitlines() if arguments[1] == "install" else []
        calls.append([arguments[1], *[a for a in arguments if a.startswith("http")], *lines])
        if "torch==2.13.0+cpu" in lines and not any(a.startswith("http") for a in arguments):
            raise NoSuchVersionError("No matching distribution found for torch==2.13.0+cpu")

    monkeypatch.setattr(Pip, "_run", run)
    return calls


def test_torch_comes_from_the_cpu_index_when_pip_knows_no_cpu_build(
    tmp_path: Path, lock: Path, asked: list[list[str]]
) -> None:
    lock.write_text("torch==2.13.0+cpu\nidna==3.20\n")
    _build(tmp_path / "e", lock)
    assert asked == [
        ["install", "torch==2.13.0+cpu"],
        ["install", TORCH_CPU_INDEX, "torch==2.13.0+cpu"],
        ["install", "idna==3.20"],
        ["check"],
    ]


def test_a_torch_index_that_is_set_is_the_only_one_asked(tmp_path: Path, lock: Path, asked: list[list[str]]) -> None:
    lock.write_text("torch==2.13.0+cpu\nidna==3.20\n")
    _build(tmp_path / "e", lock, torch_index="https://wheels.example/cpu")
    assert asked[0] == ["install", "https://wheels.example/cpu", "torch==2.13.0+cpu"]


def test_the_shipped_lock_pins_every_line_and_torch_to_the_cpu_build() -> None:
    lines = [line for line in environment.LOCK_FILE.read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    assert 'torch==2.13.0+cpu ; sys_platform == "linux"' in lines
    assert not [line for line in lines if line.startswith(("nvidia", "triton"))]


# --- the code layer --------------------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path, built: tuple[Path, Path, Path]) -> Callable[[], Path]:
    return lambda: build_code(tmp_path / "code", built[0], progress=Silent())


def test_the_code_layer_runs_our_code_over_the_dependencies(code: Callable[[], Path]) -> None:
    python = code()
    assert code() == python
    assert _imports(python, "modelexport", "idna")
    script = "import modelexport, importlib.metadata as m; print(modelexport.__file__, m.version('modelexport'))"
    said = subprocess.run([python, "-I", "-c", script], check=True, capture_output=True, text=True).stdout
    file, version = said.split()
    assert Path(file).is_relative_to(python.parent.parent)
    assert version == "1.0.0"
    assert os.access(python.parent / "modelexport", os.X_OK)


def test_changed_code_is_another_layer_over_the_same_dependencies(
    tmp_path: Path, code: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = code()
    changed = tmp_path / "modelexport"
    changed.mkdir()
    (changed / "__init__.py").write_text("changed = True\n")
    monkeypatch.setattr(environment, "_package_directory", lambda: changed)
    second = code()
    assert second != first
    assert subprocess.run([second, "-I", "-c", "import modelexport; modelexport.changed"], check=False).returncode == 0


def test_a_ready_interpreter_must_run_the_exporter(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="MODELEXPORT_EXPORTER_PYTHON"):
        environment.prepare(tmp_path, ready=tmp_path / "python", torch_index=None, progress=Silent())
    ready = Path(sys.executable)
    assert environment.prepare(tmp_path, ready=ready, torch_index=None, progress=Silent()) == ready


def test_code_that_nobody_has_used_for_a_month_is_removed(tmp_path: Path) -> None:
    def layer(name: str, days: float) -> Path:
        found = tmp_path / "environments" / name
        (found / "build" / "bin").mkdir(parents=True)
        (found / "build" / "bin" / "python").touch()
        (found / "current").write_text("build")
        used = time.time() - days * 24 * 3600
        os.utime(found / "current", (used, used))
        return found

    old, recent, ours, locked = layer("code-a", 31), layer("code-b", 29), layer("code-c", 99), layer("code-d", 99)
    dependencies = layer("dependencies-a", 99)
    with FileLock(locked.with_suffix(".lock")):
        assert environment.prune(tmp_path, ours / "build" / "bin" / "python") == [old]
    assert not old.exists()
    assert all((kept / "build" / "bin" / "python").exists() for kept in (recent, ours, locked, dependencies))


def test_what_is_asked_for_counts_as_used(tmp_path: Path) -> None:
    layer = tmp_path / "environments" / "code-a"
    (layer / "build" / "bin").mkdir(parents=True)
    (layer / "build" / "bin" / "python").touch()
    (layer / "current").write_text("build")
    os.utime(layer / "current", (0, 0))
    environment._layer(layer, lambda directory: None, Silent())
    assert environment.prune(tmp_path, tmp_path / "python") == []
