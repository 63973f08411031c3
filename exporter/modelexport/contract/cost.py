"""What an export costs, before it is paid: peak memory and disk, from the size of the weights alone.

Both sides ask: the bot before it downloads (the Hub lists the sizes), the exporter before it loads (it reads the
headers).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from modelexport.contract.errors import TooLargeError, UsageError

_ENGINE = 700_000_000  # bytes; torch, transformers, Optimum and ONNX Runtime imported, and a trace without weights
_COPIES = 1.8  # of the exported weights: the mapped file, and what is on its way from it or to it
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # version 2, version 1
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Cost:
    """Bytes.

    Attributes:
        memory: peak of the whole process tree, proportional set size.
        disk: the output, and the scratch beside it; the checkpoint itself excepted.
    """

    memory: int
    disk: int


def estimate(exported: int, computed: int = 0) -> Cost:
    """The cost of exporting so many bytes of weights.

    Args:
        exported: bytes of the weights in the dtype that they are exported in: four per parameter for float32, whatever
            the checkpoint keeps them in.
        computed: bytes of the weights in the widest dtype that PyTorch computes in, where that is more.

    The two constants are upper bounds of the straight line that ``docs/performance.md`` measures.
    """
    return Cost(memory=int(_ENGINE + _COPIES * max(exported, computed)), disk=int(1.05 * exported) + 100_000_000)


def memory_limit(max_memory: int | None = None) -> int:
    """Bytes that this process may use: the least of ``max_memory``, the container's limit and the machine's memory."""
    limits = [max_memory or _UNLIMITED, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


def require_fits(cost: Cost, memory: int, disk: int, what: str) -> None:
    """Refuse what cannot fit.

    Args:
        memory: bytes available, see :func:`memory_limit`.
        disk: bytes free where the output goes.
        what: names the model in the message.

    Raises:
        TooLargeError: with the numbers.
    """
    if cost.memory > memory:
        raise TooLargeError(
            f"Exporting {what} takes about {_gb(cost.memory)} of memory, and there are {_gb(memory)}. "
            "Use a larger machine or container, or raise --max-memory where that is the limit."
        )
    if cost.disk > disk:
        raise TooLargeError(
            f"Exporting {what} takes about {_gb(cost.disk)} of disk, and {_gb(disk)} are free. "
            "Free some space, or write to another disk."
        )


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes in a size such as ``8GB``, ``500 MiB`` or ``1000``. Raises UsageError."""
    compact = text.strip().upper().replace(" ", "")
    number = compact.rstrip("BKMGTI")
    unit = compact[len(number) :]
    unit = unit if unit in _UNITS else f"{unit}B"
    try:
        return int(float(number) * _UNITS[unit])
    except (KeyError, ValueError) as error:
        raise UsageError(f"{text!r} is no size. Write a number and a unit, such as 8GB or 500MiB.") from error


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
