"""Whole processes, alternately: ours, ``optimum-cli``, ours, ... Ours includes tags, parity gate and Optimum check."""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import measure
from bench.measure import drop_output
from bench.models import Model, ensure

WATCHED = 2
"""Pairs of runs whose memory is watched; it varies little."""

SIDES = ("ours", "peer")


@dataclass
class Pairs:
    """All runs of one model, by side.

    Attributes:
        nbytes: of its weights.
        seconds: of the runs that were timed.
        memory: of those that were watched.
    """

    model: str
    nbytes: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    memory: dict[str, list[dict[str, int]]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def ratio(self, what: str) -> float:
        """Median of the ratios, pair by pair: the noise of a machine hits both runs of a pair alike."""
        pairs = zip(self.figures("ours", what), self.figures("peer", what), strict=True)
        return statistics.median(ours / peer for ours, peer in pairs)

    def median(self, side: str, what: str) -> float:
        """Median of one figure of one side."""
        return statistics.median(self.figures(side, what))

    def figures(self, side: str, what: str) -> list[float]:
        """``seconds``, ``pss`` or ``anonymous`` of every run."""
        return self.seconds[side] if what == "seconds" else [run[what] for run in self.memory[side]]


def run(model: Model, timed: int, watched: int) -> Pairs:
    """Measure one model, so many pairs of each kind; prints a line per run."""
    source = ensure(model)
    for path in source.glob("*.safetensors"):
        path.read_bytes()  # both sides find the checkpoint in the page cache
    found = Pairs(model.name, model.nbytes)
    with tempfile.TemporaryDirectory(dir=source.parents[1], prefix="out-") as scratch:
        out, log = Path(scratch) / "out", Path(scratch) / "log"
        for side in _alternate(timed):
            drop_output(out)
            found.seconds[side].append(measure.seconds(_command(side, source, out, model.task), log, _environment()))
            print(f"  {model.name:13} {side:5} {found.seconds[side][-1]:6.1f} s", flush=True)
        for side in _alternate(watched):
            drop_output(out)
            peak = measure.memory(_command(side, source, out, model.task), log, _environment())
            found.memory[side].append(asdict(peak))
            line = f"PSS {peak.pss / 1e6:6.0f} MB  anonymous {peak.anonymous / 1e6:6.0f} MB"
            print(f"  {model.name:13} {side:5} {line}", flush=True)
        drop_output(out)
    return found


def _alternate(pairs: int) -> Iterator[str]:
    for _ in range(pairs):
        yield from SIDES


def _command(side: str, source: Path, out: Path, task: str) -> list[str]:
    if side == "ours":
        return [sys.executable, "-m", "modelexport", "export", str(source), str(out), "--task", task]
    cli = "from optimum.commands.optimum_cli import main; main()"  # what the script optimum-cli does
    return [sys.executable, "-c", cli, "export", "onnx", "--model", str(source), "--task", task, str(out)]


def _environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**compiled, **quiet}
