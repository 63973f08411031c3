"""What a killed run leaves is removed by the next one, and nobody's running work is touched."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelexport import temporary

PREFIX = temporary.PREFIX


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The temporary folder of the runs of a test."""
    found = tmp_path / "tmp"
    found.mkdir()
    return found


@contextlib.contextmanager
def running(*argv: object, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, *map(str, argv)],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(look: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_lives_as_long_as_its_block(place: Path) -> None:
    with temporary.held(place, "a-", ".b") as folder:
        assert folder.is_dir()
        assert folder.name.startswith("a-")
        assert folder.name.endswith(".b")
        (folder / "file").touch()
    assert list(place.iterdir()) == []


def test_a_folder_that_was_renamed_is_kept(place: Path) -> None:
    with temporary.held(place, "a-") as folder:
        folder.rename(place / "kept")
    assert [path.name for path in place.iterdir()] == ["kept"]


def test_only_leftovers_of_the_same_names_are_removed(place: Path) -> None:
    for name in ("a-1.b", "a-2.c", "x-3.b", "a-[4].b"):
        (place / name).mkdir()
        (place / name / "file").touch()
    (place / "a-5.b").touch()
    (place / "elsewhere").mkdir()
    (place / "a-6.b").symlink_to("elsewhere")
    with temporary.held(place, "a-", ".b"):
        pass
    assert sorted(path.name for path in place.iterdir()) == ["a-2.c", "a-5.b", "a-6.b", "elsewhere", "x-3.b"]


def test_a_folder_is_held_by_the_processes_forked_from_its_maker(place: Path) -> None:
    """As long as one of them works in it, the death of its maker makes it no leftover."""
    script = (
        "import os, sys\n"
        "from modelexport import temporary\n"
        "with temporary.folder() as folder:\n"
        "    if os.fork() == 0:\n"
        "        (folder / 'mine').touch(); sys.stdin.read(); os._exit(0)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    with running("-c", script, place=place) as process:
        assert process.wait() == -signal.SIGKILL
        until(lambda: any(name.endswith("mine") for name in contents(place)))
        with temporary.held(place, PREFIX) as ours:
            assert len(set(place.iterdir()) - {ours}) == 1
        assert process.stdin is not None
        process.stdin.close()

        def gone() -> bool:
            with temporary.held(place, PREFIX) as ours:
                return set(place.iterdir()) == {ours}

        until(gone)


def test_many_at_once_never_take_each_others(place: Path) -> None:
    """Everybody looks for leftovers, also between the moment a folder is made and the moment it is locked."""
    lost: list[Path] = []

    def work() -> None:
        for _ in range(50):
            with temporary.held(place, PREFIX) as folder:
                (folder / "file").write_text("x")
                if not (folder / "file").exists():
                    lost.append(folder)

    def checked() -> None:
        try:
            work()
        except OSError as error:
            lost.append(Path(error.filename))

    threads = [threading.Thread(target=checked) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert list(place.iterdir()) == []


def test_where_nothing_can_be_locked_nothing_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")  # NFS, of a descriptor that cannot be written to

    monkeypatch.setattr(fcntl, "flock", refused)
    (place / f"{PREFIX}1").mkdir()
    with temporary.held(place, PREFIX) as folder:
        assert folder.is_dir()
    assert [path.name for path in place.iterdir()] == [f"{PREFIX}1"]


def test_a_killed_export_is_cleared_up_by_the_next_and_a_running_one_is_left_alone(
    bert: Path, tmp_path: Path, place: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def scratch() -> set[Path]:
        return set(place.glob(f"{PREFIX}*"))

    def in_the_middle(before: set[Path]) -> bool:
        return any(contents(folder) for folder in scratch() - before)

    export = ("-m", "modelexport", "export", bert)
    with running(*export, out / "killed", place=place) as killed:
        until(lambda: in_the_middle(set()))
        killed.kill()
        killed.wait()
    left = scratch()
    assert len(left) == 1
    assert list(out.glob(".killed.*.partial"))
    with running(*export, out / "neighbour", place=place) as neighbour:
        until(lambda: in_the_middle(left))
        os.killpg(neighbour.pid, signal.SIGSTOP)
        assert not scratch() & left  # the leftover went when the neighbour began
        theirs = {folder: contents(folder) for folder in (*scratch(), *out.glob(".neighbour.*.partial"))}
        assert len(theirs) == 2
        with running(*export, out / "killed", place=place) as again:
            assert again.wait(300) == 0
        assert sorted(path.name for path in out.iterdir() if "neighbour" not in path.name) == ["killed"]
        assert scratch() <= set(theirs)
        assert {folder: contents(folder) for folder in theirs} == theirs
        os.killpg(neighbour.pid, signal.SIGCONT)
        assert neighbour.wait(300) == 0
    assert sorted(path.name for path in out.iterdir()) == ["killed", "neighbour"]
    assert scratch() == set()
