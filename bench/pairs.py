"""Whole processes, alternately: ours, ``optimum-cli``, ours, ... Ours includes tags, parity gate and Optimum check."""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure import Run, drop_output, measure
from bench.models import Model, ensure


@dataclass(frozen=True)
class Pairs:
    """All runs of one model."""

    model: str
    nbytes: int
    ours: list[Run]
    peer: list[Run]

    def ratio(self, what: str) -> float:
        """Median of the ratios, pair by pair: the noise of a machine hits both runs of a pair alike."""
        pairs = zip(self.ours, self.peer, strict=True)
        return statistics.median(getattr(ours, what) / getattr(peer, what) for ours, peer in pairs)

    def median(self, side: str, what: str) -> float:
        """Median of one figure of one side."""
        return statistics.median(getattr(run, what) for run in getattr(self, side))

    def to_dict(self) -> dict[str, Any]:
        """For the results file."""
        return asdict(self)


def run(model: Model, pairs: int | None = None) -> Pairs:
    """Measure one model; prints a line per run."""
    source = ensure(model)
    for path in source.glob("*.safetensors"):
        path.read_bytes()  # both sides find the checkpoint in the page cache
    ours, peer = [], []
    with tempfile.TemporaryDirectory(dir=source.parents[1], prefix="out-") as scratch:
        for side in _alternate(pairs or model.pairs):
            out = Path(scratch) / "out"
            drop_output(out)
            done = measure(_command(side, source, out, model.task), Path(scratch) / "log", _environment())
            (ours if side == "ours" else peer).append(done)
            print(
                f"  {model.name:12} {side:5} {done.seconds:6.1f} s  PSS {done.pss / 1e6:6.0f} MB  "
                f"anonymous {done.anonymous / 1e6:6.0f} MB",
                flush=True,
            )
        drop_output(out)
    return Pairs(model.name, model.nbytes, ours, peer)


def _alternate(pairs: int) -> Iterator[str]:
    for _ in range(pairs):
        yield "ours"
        yield "peer"


def _command(side: str, source: Path, out: Path, task: str) -> list[str]:
    if side == "ours":
        return [sys.executable, "-m", "modelexport", "export", str(source), str(out), "--task", task]
    cli = "from optimum.commands.optimum_cli import main; main()"  # what the script optimum-cli does
    return [sys.executable, "-c", cli, "export", "onnx", "--model", str(source), "--task", task, str(out)]


def _environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**compiled, **quiet}
