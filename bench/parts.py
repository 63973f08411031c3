"""Parts of an export by themselves: tagging, copying of small files, the warm exporter, and the floor."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.models import MODELS, Model, ensure

_REPEAT = 7


def tagging() -> dict[str, float]:
    """Seconds of trace, projection and writing of the 110 M BERT, with the hierarchy and with it switched off.

    Off means: torch's own scope map, and no pass that writes a tag.
    """
    from modelexport import bridge, checkpoint
    from modelexport import graph as graphs
    from modelexport.convert import weights
    from modelexport.htp.hierarchy import Hierarchy
    from modelexport.load import load_model
    from modelexport.plan import plan
    from modelexport.tracing import trace_graph

    source = ensure(_model("bert 110M"))
    read = checkpoint.read(source)
    with tempfile.TemporaryDirectory(dir=source.parents[1]) as scratch:
        loaded = load_model(bridge.prepare(read, Path(scratch)), read, "text-classification", torch.float32)
        (graph_plan,) = plan(loaded.model, "text-classification")

        def export() -> None:
            model = trace_graph(graph_plan, Hierarchy(loaded.model), 18, lambda _: None)
            weights.write(model, Path(scratch) / "model.onnx")

        with _no_tags(graphs):
            off = _median(export)
        on = _median(export)
    return {"with tags": on, "without": off}


@contextmanager
def _no_tags(graphs: object) -> Iterator[None]:
    import onnx_ir as ir

    from modelexport.htp import project, trace

    class Nothing(ir.passes.InPlacePass):
        def __init__(self, *_: object) -> None:
            super().__init__()

        def call(self, model: ir.Model) -> ir.passes.PassResult:
            return ir.passes.PassResult(model, modified=False)

    saved = {name: getattr(graphs, name) for name in ("ProjectCalls", "InferTags", "untagged")}
    recorder = trace._CallRecorder.get
    try:
        graphs.ProjectCalls = graphs.InferTags = Nothing  # type: ignore[attr-defined]
        graphs.untagged = lambda _: []  # type: ignore[attr-defined]
        trace._CallRecorder.get = lambda self, module, default=None: default  # type: ignore[method-assign]
        yield
    finally:
        trace._CallRecorder.get = recorder  # type: ignore[method-assign]
        for name, value in saved.items():
            setattr(graphs, name, value)
        assert project is not None


def copying() -> dict[str, float]:
    """Seconds to copy MiniLM's config and tokenizer files."""
    from modelexport import bridge, checkpoint
    from modelexport.bundle import bundle

    source = ensure(_model("minilm real"))
    read = checkpoint.read(source)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = bridge.prepare(read, Path(scratch))
        with tempfile.TemporaryDirectory() as out:
            return {"seconds": _median(lambda: bundle(read, prepared, Path(out)))}


def warm(jobs: int = 10) -> dict[str, float]:
    """Seconds for so many exports of the 0.5 M BERT: one process each, and through one warm exporter."""
    source = ensure(_model("bert 0.5M"))
    command = [sys.executable, "-m", "modelexport"]
    with tempfile.TemporaryDirectory(dir=source.parents[1]) as scratch:
        begin = time.perf_counter()
        for number in range(jobs):
            cold = [*command, "export", str(source), f"{scratch}/cold-{number}", "--events"]
            subprocess.run(cold, check=True, capture_output=True)
        cold_seconds = time.perf_counter() - begin
        lines = "".join(
            json.dumps({"arguments": [str(source), f"{scratch}/warm-{number}"]}) + "\n" for number in range(jobs)
        )
        begin = time.perf_counter()
        done = subprocess.run([*command, "serve-jobs"], input=lines, text=True, check=True, capture_output=True)
        warm_seconds = time.perf_counter() - begin
    assert done.stdout.count('"finished"') == jobs
    return {"jobs": jobs, "cold": cold_seconds, "warm": warm_seconds, "throughput": cold_seconds / warm_seconds}


def stages() -> dict[str, dict[str, float]]:
    """Seconds of each stage of one export of every model of the table, by the events that the export reports.

    ``imports`` ends with the first event; ``write`` holds the references that PyTorch computes meanwhile, and ``check``
    the end of the process.
    """
    return {model.name: _stages(model) for model in MODELS}


def _stages(model: Model) -> dict[str, float]:
    source = ensure(model)
    with tempfile.TemporaryDirectory(dir=source.parents[1]) as scratch:
        command = [sys.executable, "-m", "modelexport", "export", str(source), f"{scratch}/out", "--task", model.task]
        begin = last = time.perf_counter()
        stage, found = "imports", dict.fromkeys(("imports", "load", "trace", "write", "check"), 0.0)
        with subprocess.Popen([*command, "--events"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "stage":
                    now = time.perf_counter()
                    found[stage] += now - last
                    last, stage = now, _STAGES[event["stage"]]
        found[stage] += time.perf_counter() - last
    assert process.returncode == 0
    return {**found, "all": time.perf_counter() - begin}


_STAGES = {
    "inspect": "load", "load": "load", "trace": "trace", "project": "trace", "write": "write", "bundle": "check",
    "check": "check",
}  # fmt: skip


def floor() -> dict[str, float]:
    """Seconds to read the weights of the 335 M BERT once and write them once, with ``dd``."""
    source = ensure(_model("bert 335M"))
    weights = source / "model.safetensors"
    target = source.parents[1] / "dd"
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run(["dd", f"if={weights}", f"of={target}", "bs=8M"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
        target.unlink()
    return {"bytes": weights.stat().st_size, "seconds": statistics.median(seconds)}


def _model(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


def _median(function: Callable[[], object]) -> float:
    function()
    seconds = []
    for _ in range(_REPEAT):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
