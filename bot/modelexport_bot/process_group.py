"""Who is in a process group, and how much memory they hold. Nothing but what the system itself tells."""

import contextlib
import subprocess
import sys
from pathlib import Path


def memory(group: int) -> int:
    """Bytes resident in the processes of a group: proportional set sizes on Linux, resident set sizes elsewhere."""
    if sys.platform == "linux":
        return sum(_proportional_set_size(pid) for pid in members(group))
    listing = subprocess.run(["ps", "-axo", "pgid=,rss="], capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in listing.splitlines())
    return sum(int(rss) * 1024 for pgid, rss in rows if int(pgid) == group)


def members(group: int) -> list[int]:
    """The ids of the processes of a group that have not ended."""
    if sys.platform != "linux":
        listing = subprocess.run(["ps", "-axo", "pgid=,pid="], capture_output=True, text=True, check=False).stdout
        return [int(pid) for pgid, pid in (line.split() for line in listing.splitlines()) if int(pgid) == group]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # "pid (comm) state ppid pgrp ...": the command may hold spaces and brackets, so from the last one on
                state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(pgrp) == group and state != "Z":
                    found.append(int(entry.name))
    return found


def _proportional_set_size(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
