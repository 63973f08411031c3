"""The exporter's process: what it sees, how it ends, and that nothing of it outlives us.

The exporter here is a few lines of Python, run for every job, behind an executable that takes the place of its
interpreter; what matters is the process around it.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelexport.contract import Event, Finished, Progress, Stage
from modelexport.contract.errors import (
    ExporterCrashedError,
    OutOfMemoryError,
    ParityFailedError,
    TimeLimitError,
)
from modelexport_bot.exporters import Exporters
from modelexport_bot.sandbox import Exporter, Limits

TOKEN = "hf_" + "SecretSecretSecretSecret"
FINISHED = '{"event": "finished", "output": "out", "manifest": "modelexport.json"}'
READY = '{"event": "ready"}'
SERVER = f"""
import json, sys
arguments = sys.argv[1:]
print('{READY}', flush=True)
for line in sys.stdin:
    job = json.loads(line)["arguments"]
"""
MakeExporter = Callable[[str], Path]


@pytest.fixture
def exporter(tmp_path: Path) -> MakeExporter:
    """An "interpreter" that runs the given code instead of modelexport's jobs, and ends with the first that ends it.

    ``arguments`` are what it was called with, ``job`` is what the job was called with.
    """

    def make(code: str) -> Path:
        script = tmp_path / "exporter.py"
        script.write_text(SERVER + textwrap.indent(textwrap.dedent(code), "    "))
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        return python

    return make


def _export(
    python: Path, *, seconds: float = 20, memory: int | None = None, environment: dict[str, str] | None = None
) -> tuple[Finished, list[Event], list[str]]:
    events: list[Event] = []
    lines: list[str] = []
    inherited = {"PATH": os.environ["PATH"], "HF_TOKEN": TOKEN, "PYTHONPATH": "/nowhere", **(environment or {})}
    with Exporter(python, inherited) as exporter:
        finished = _job(exporter, events, lines, seconds=seconds, memory=memory)
    return finished, events, lines


def _job(
    exporter: Exporter, events: list[Event], lines: list[str], *, seconds: float = 20, memory: int | None = None
) -> Finished:
    return exporter.export(
        ["source", "out"], limits=Limits(seconds, memory), on_event=events.append, on_line=lines.append
    )


def test_events_are_passed_on_in_order(exporter: MakeExporter) -> None:
    python = exporter(f"""
        print('{{"event": "stage", "stage": "load", "detail": "weights"}}')
        print('a stray print of some library')
        print('{{"event": "progress", "stage": "load", "done": 1, "total": 2}}')
        print('{FINISHED}')
        sys.exit(0)
    """)
    finished, events, lines = _export(python)
    assert finished.output == "out"
    assert [type(event) for event in events] == [Stage, Progress, Finished]
    assert lines == ["a stray print of some library"]


def test_it_is_called_isolated_and_takes_its_job_on_stdin(exporter: MakeExporter) -> None:
    python = exporter(f"print(arguments, job); print('{FINISHED}'); print('{READY}', flush=True)")
    _, _, lines = _export(python)
    assert lines == ["['-I', '-m', 'modelexport', 'serve-jobs'] ['source', 'out']"]


def test_no_token_reaches_it(exporter: MakeExporter) -> None:
    python = exporter(f"""
        import json, os
        from pathlib import Path
        seen = {{"environment": dict(os.environ), "argv": arguments, "home": os.listdir(os.environ["HOME"])}}
        for process in ("self", str(os.getppid())):
            seen[process] = [Path("/proc", process, name).read_text() for name in ("cmdline", "environ")]
        print(json.dumps(seen))
        print('{FINISHED}')
        sys.exit(0)
    """)
    _, _, lines = _export(python, environment={"HUGGING_FACE_HUB_TOKEN": TOKEN, "GITHUB_TOKEN": "ghp_" + "a" * 30})
    seen = json.loads(lines[0])
    assert TOKEN not in lines[0]
    assert not seen["environment"].keys() & {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN"}
    assert "PYTHONPATH" not in seen["environment"]
    assert seen["environment"]["HF_HUB_OFFLINE"] == "1"
    assert seen["home"] == []


def test_what_looks_like_a_token_is_cut_out_of_its_lines(exporter: MakeExporter) -> None:
    python = exporter(f"""
        print("Authorization: Bearer {TOKEN}", file=sys.stderr)
        print("{TOKEN}")
        sys.exit(3)
    """)
    with pytest.raises(ExporterCrashedError) as caught:
        _export(python)
    assert TOKEN not in caught.value.message
    assert "***" in caught.value.message


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux")
def test_it_has_no_network_where_the_kernel_lets_us_take_it(exporter: MakeExporter) -> None:
    python = exporter(f"""
        import socket
        print([name for _, name in socket.if_nameindex()])
        print('{FINISHED}')
        sys.exit(0)
    """)
    _, _, lines = _export(python)
    probe = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    probe_user = subprocess.run(["unshare", "--user", "--net", "true"], check=False, capture_output=True)
    if probe.returncode == 0 or probe_user.returncode == 0:
        assert lines == ["['lo']"]


def test_a_failed_event_is_raised_as_its_class(exporter: MakeExporter) -> None:
    python = exporter("""
        print('{"event": "failed", "code": "parity_failed", "message": "logits differ by 3"}')
        sys.exit(30)
    """)
    with pytest.raises(ParityFailedError, match="logits differ by 3"):
        _export(python)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("break", "exit status 0"),
        (f"print('{READY}', flush=True)", "its process went away"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("print('x' * 5_000_000); sys.exit(1)", "exit status 1"),
        ("sys.stdout.buffer.write(bytes(range(256)) * 1000); sys.exit(1)", "exit status 1"),
        (f"print('{FINISHED}'); sys.exit(1)", "exit status 1"),
    ],
)
def test_ending_without_a_result_is_a_crash(exporter: MakeExporter, code: str, told: str) -> None:
    with pytest.raises(ExporterCrashedError, match=told):
        _export(exporter(code))


def test_a_crash_shows_the_last_lines(exporter: MakeExporter) -> None:
    python = exporter("""
        for n in range(1000): print(f"line {n}", file=sys.stderr)
        sys.exit(1)
    """)
    with pytest.raises(ExporterCrashedError) as caught:
        _export(python)
    assert "line 999" in caught.value.message
    assert "line 900" not in caught.value.message


def test_killed_by_the_system_means_out_of_memory(exporter: MakeExporter) -> None:
    with pytest.raises(OutOfMemoryError):
        _export(exporter("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_hanging_export_is_stopped_with_all_its_children(exporter: MakeExporter, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    python = exporter(f"""
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "100"])
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(100)
    """)
    started = time.monotonic()
    with pytest.raises(TimeLimitError, match="--timeout"):
        _export(python, seconds=1)
    assert time.monotonic() - started < 10
    _assert_gone(pids)


def test_memory_over_the_limit_is_stopped(exporter: MakeExporter) -> None:
    python = exporter("""
        import time
        held = bytearray(300_000_000)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(100)
    """)
    with pytest.raises(OutOfMemoryError, match="--max-memory"):
        _export(python, memory=200_000_000)


def test_ctrl_c_stops_it(exporter: MakeExporter, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = _parent_in_an_export(exporter, pids)
    process.send_signal(signal.SIGINT)
    process.wait(10)
    _assert_gone(pids)


def test_it_dies_with_its_parent(exporter: MakeExporter, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = _parent_in_an_export(exporter, pids)
    process.kill()
    process.wait(10)
    _assert_gone(pids)


# --- one process, many jobs -------------------------------------------------------------------------------------------


def _told(exporter: Exporter, **limits: float) -> str:
    """The one line that a job has written."""
    lines: list[str] = []
    _job(exporter, [], lines, **limits)  # type: ignore[arg-type]
    (line,) = lines
    return line


def test_one_process_takes_many_jobs(exporter: MakeExporter) -> None:
    python = exporter(f"import os; print(os.getpid()); print('{FINISHED}'); print('{READY}', flush=True)")
    with Exporter(python, os.environ) as warm:
        assert len({_told(warm) for _ in range(3)}) == 1


def test_it_imports_while_we_do_something_else(exporter: MakeExporter, tmp_path: Path) -> None:
    python = exporter(f"print('{FINISHED}'); print('{READY}', flush=True)")
    script = tmp_path / "exporter.py"
    script.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n{script.read_text()}")
    with Exporter(python, os.environ) as early:
        early.start()
        early.start()
        deadline = time.monotonic() + 10
        while not (tmp_path / "imported").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        _job(early, [], [])


def test_nothing_of_a_job_is_left_for_the_next(exporter: MakeExporter) -> None:
    python = exporter(f"""
        import os
        seen = []
        for folder in (os.environ["HOME"], os.environ["TMPDIR"], "."):
            seen.append(sorted(os.listdir(folder)))
            os.mkdir(os.path.join(folder, "secrets"))
            open(os.path.join(folder, "secrets", "weights"), "w").close()
            os.symlink("/", os.path.join(folder, "everything"))
        print(json.dumps(seen))
        print('{FINISHED}')
        print('{READY}', flush=True)
    """)
    with Exporter(python, os.environ) as warm:
        for _ in range(2):
            assert json.loads(_told(warm)) == [[], [], ["home", "tmp"]]


def test_after_a_typed_failure_the_same_process_goes_on(exporter: MakeExporter) -> None:
    python = exporter(f"""
        import os
        print(os.getpid())
        jobs = globals().get("jobs", 0) + 1
        failed = '{{"event": "failed", "code": "parity_failed", "message": "logits differ by 3"}}'
        print(failed if jobs == 2 else '{FINISHED}')
        print('{READY}', flush=True)
    """)
    with Exporter(python, os.environ) as warm:
        first = _told(warm)
        with pytest.raises(ParityFailedError):
            _job(warm, [], [])
        assert _told(warm) == first


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("time.sleep(100)", TimeLimitError),
        ("os.kill(os.getpid(), signal.SIGKILL)", OutOfMemoryError),
        ("os._exit(3)", ExporterCrashedError),
        ("print(FAILED.replace('CODE', 'out_of_memory')); print(READY, flush=True)", OutOfMemoryError),
        ("print(FAILED.replace('CODE', 'exporter_crashed')); print(READY, flush=True)", ExporterCrashedError),
        ("subprocess.Popen(['sleep', '100']); print(FINISHED); print(READY, flush=True)", None),
    ],
)
def test_after_a_crash_or_with_something_left_behind_the_next_job_starts_a_new_one(
    exporter: MakeExporter, tmp_path: Path, broken: str, error: type[Exception] | None
) -> None:
    python = exporter(f"""
        import os, signal, subprocess, time
        FINISHED, READY = {FINISHED!r}, {READY!r}
        FAILED = '{{"event": "failed", "code": "CODE", "message": "It broke."}}'
        first = not os.path.exists({str(tmp_path / "pids")!r})
        if first:
            open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}}")
            {broken}
            continue
        print(os.getpid())
        print(FINISHED)
        print(READY, flush=True)
    """)
    with Exporter(python, os.environ) as warm:
        if error is None:
            _job(warm, [], [])
        else:
            with pytest.raises(error):
                _job(warm, [], [], seconds=2)
        _assert_gone(tmp_path / "pids")
        assert _told(warm) != (tmp_path / "pids").read_text()


def test_one_that_ended_while_it_waited_is_replaced(exporter: MakeExporter) -> None:
    python = exporter(f"import os; print(os.getpid()); print('{FINISHED}'); print('{READY}', flush=True)")
    with Exporter(python, os.environ) as warm:
        first = _told(warm)
        os.kill(int(first), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while _runs(first):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)  # its supervisor follows
        assert _told(warm) != first


def test_nothing_is_left_once_it_is_closed(exporter: MakeExporter, tmp_path: Path) -> None:
    python = exporter("time.sleep(100)")
    script = tmp_path / "exporter.py"
    told = f"import os\nopen({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{os.getcwd()}}')\n"
    script.write_text(told + script.read_text())
    with Exporter(python, os.environ) as warm:
        warm.start()
        deadline = time.monotonic() + 10
        while not ((tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    pid, scratch = (tmp_path / "pids").read_text().split()
    assert not _runs(pid)
    assert not Path(scratch).exists()


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_running_one_keeps_its_own(
    exporter: MakeExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = exporter("time.sleep(100)")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def folders() -> set[Path]:
        return {path for path in temporary.iterdir() if path.is_dir()}

    script = (
        "import os, sys, pathlib\n"
        "from modelexport_bot.sandbox import Exporter\n"
        "Exporter(pathlib.Path(sys.argv[1]), os.environ).start()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, python], env={**os.environ, "TMPDIR": str(temporary)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = folders()
    assert len(left) == 1
    with Exporter(python, os.environ) as first, Exporter(python, os.environ) as second:
        first.start()
        own = folders()
        assert len(own) == 1
        assert not own & left
        second.start()
        assert len(folders()) == 2
        assert own < folders()
        closing = threading.Thread(target=second.close)  # not the thread that started it
        closing.start()
        closing.join()
        assert folders() == own
    assert list(temporary.iterdir()) == []


# --- exporters that jobs share ---------------------------------------------------------------------------------------


@pytest.fixture
def python(exporter: MakeExporter) -> Path:
    return exporter(f"import os; print(os.getpid()); print('{FINISHED}'); print('{READY}', flush=True)")


def _by(exporters: Exporters, python: Path) -> str:
    """The exporter that does a job, by its process."""
    with exporters.lent(python, os.environ) as lent:
        return _told(lent)


def test_the_one_that_was_started_ahead_gets_the_job_and_ends_with_it(python: Path) -> None:
    exporters = Exporters()
    exporters.start_one(python, os.environ)
    exporters.start_one(python, os.environ)
    pid = _by(exporters, python)
    assert not _runs(pid)
    assert _by(exporters, python) != pid


def test_the_one_that_was_started_ahead_ends_if_there_is_no_job(python: Path, tmp_path: Path) -> None:
    script = tmp_path / "exporter.py"
    script.write_text(
        f"import os\nopen({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}}')\n" + script.read_text()
    )
    exporters = Exporters()
    exporters.start_one(python, os.environ)
    deadline = time.monotonic() + 10
    while not ((tmp_path / "pids").exists() and (tmp_path / "pids").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    exporters.settle()
    _assert_gone(tmp_path / "pids")


def test_so_many_are_kept_warm_and_no_more(python: Path) -> None:
    exporters = Exporters(keep=1)
    with exporters.lent(python, os.environ) as one, exporters.lent(python, os.environ) as other:
        kept, surplus = _told(other), _told(one)  # the other is given back first
    assert kept != surplus
    assert not _runs(surplus)
    assert _by(exporters, python) == kept
    exporters.settle()
    assert _runs(kept)
    exporters.close()
    assert not _runs(kept)
    assert not _runs(_by(exporters, python))


def _parent_in_an_export(exporter: MakeExporter, pids: Path) -> subprocess.Popen[bytes]:
    """A process of its own that is in the middle of an export which ignores signals."""
    python = exporter(f"""
        import os, signal, subprocess, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "100"])
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(100)
    """)
    code = f"""
        import os
        from pathlib import Path
        from modelexport_bot.sandbox import Exporter, Limits
        with Exporter(Path({str(python)!r}), os.environ) as exporter:
            exporter.export(["a"], limits=Limits(60), on_event=print, on_line=print)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def _assert_gone(pids: Path) -> None:
    deadline = time.monotonic() + 5
    for pid in pids.read_text().split():
        while _runs(pid):
            assert time.monotonic() < deadline, f"{pid} is still there"
            time.sleep(0.02)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
