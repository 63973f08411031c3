"""Run one command and watch its whole process tree: wall time, and memory as the kernel accounts it.

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

_INTERVAL = 0.25  # seconds; reading smaps_rollup costs the watched process time


@dataclass(frozen=True)
class Run:
    """Seconds, and peak bytes of the process tree."""

    seconds: float
    pss: int
    anonymous: int


def measure(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Run:
    """Run ``command`` to its end.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    peak_pss = peak_anonymous = 0
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            pss, anonymous = _tree(process.pid)
            peak_pss, peak_anonymous = max(peak_pss, pss), max(peak_anonymous, anonymous)
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    return Run(seconds, peak_pss, peak_anonymous)


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
