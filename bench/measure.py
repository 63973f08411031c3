"""Run one command: its wall time, or the memory of its whole process tree as the kernel accounts it.

Not both at once: looking takes time from what is looked at, and the more so the more processes it has.

``smaps_rollup`` of every process of the tree is summed a few times a second (children included):

- *PSS*, proportional set size: private pages plus each process's share of shared ones. File-backed pages (a mapped
  checkpoint) count while they are resident, once for the tree however many processes map them; the kernel may drop
  them at any time.
- *anonymous*: pages that no file backs, which the kernel cannot drop: what must really fit into memory.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_INTERVAL = 0.25  # seconds


@dataclass(frozen=True)
class Memory:
    """Peak bytes of the process tree."""

    pss: int
    anonymous: int


def seconds(command: list[str], log: Path, environment: dict[str, str] | None = None) -> float:
    """Wall time of ``command``, which is left alone meanwhile.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    with log.open("wb") as output:
        begin = time.perf_counter()
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
        passed = time.perf_counter() - begin
    _require(status, command, log)
    return passed


def memory(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Memory:
    """Peak memory of ``command``; raises as :func:`seconds` does."""
    pss = anonymous = 0
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            now_pss, now_anonymous = _tree(process.pid)
            pss, anonymous = max(pss, now_pss), max(anonymous, now_anonymous)
            time.sleep(_INTERVAL)
    _require(process.returncode, command, log)
    return Memory(pss, anonymous)


def _require(status: int, command: list[str], log: Path) -> None:
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{log.read_text()[-2000:]}")


def drop_output(folder: Path) -> None:
    """Remove an output folder and let its dirty pages go, so that the next run does not pay for them."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def _tree(pid: int) -> tuple[int, int]:
    pss = anonymous = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:  # it ended meanwhile
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
            elif line.startswith("Pss_Anon:"):
                anonymous += int(line.split()[1]) * 1024
    return pss, anonymous
