"""The part of an export that holds the PyTorch model: load, trace, project, write, and the reference outputs.

Runs in a process of its own (:mod:`modelexport.isolation`), whose memory ends with it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from transformers import PretrainedConfig

import modelexport.weights as weights
from modelexport import isolation, limits, merge, preprocessors
from modelexport.bridge import Prepared
from modelexport.checkpoint import Checkpoint
from modelexport.contract.errors import CheckpointIncompleteError, OptionsInvalidError
from modelexport.contract.events import Note, Progress, Stage, StageName
from modelexport.contract.manifest import Graph, ModuleNode, Options, Tensor
from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.tags import Origin, Tag, all_nodes
from modelexport.isolation import Emit
from modelexport.load import load_model
from modelexport.parity import references
from modelexport.parity.arithmetic import OtherArithmetic, other_dtype
from modelexport.parity.cases import Preprocessors
from modelexport.parity.generation import CacheSettings, PromptFile
from modelexport.parity.numbers import ReferenceFile
from modelexport.parity.references import Interface, References
from modelexport.patches import empty_cache
from modelexport.plan import DECODER, DECODER_MERGED, DECODER_WITH_PAST, GraphPlan, opset_of, plan
from modelexport.tracing import trace_graph
from modelexport.weights import Written


@dataclass(frozen=True)
class Converted:
    """What came out: the files, what is in them, and where the reference outputs are."""

    graphs: tuple[Graph, ...]
    files: tuple[Written, ...]
    references: References
    opset: int
    architecture: str
    dtype: str
    notes: tuple[str, ...]


def convert(
    checkpoint: Checkpoint, prepared: Prepared, task: str, options: Options, folder: Path, scratch: Path, emit: Emit
) -> Converted:
    """Write every graph of the model into ``folder`` and its reference outputs into ``scratch``.

    Raises:
        ExportFailedError: torch cannot express the model in ONNX, or a node would stay without a tag.
        OptionsInvalidError: the dtype asked for cannot be run.
        CheckpointIncompleteError: a graph would contain weights that the checkpoint does not hold.
    """
    emit(Stage(stage=StageName.LOAD, detail=f"{checkpoint.nbytes / 1e6:,.0f} MB of weights"))
    name = "float32" if options.dtype == "float32" else checkpoint.dtype
    if name == "bfloat16":
        raise OptionsInvalidError(
            "The weights are bfloat16, for which ONNX Runtime has hardly any operator on the CPU, so the result "
            "could not be run or checked. Leave --dtype source out: float32 holds every bfloat16 number exactly."
        )
    loaded = load_model(prepared, checkpoint, task, getattr(torch, name))
    settings = CacheSettings(loaded.model)
    for note in loaded.notes:
        emit(Note(message=note))
    makers = preprocessors.load(prepared.folder)
    plans = plan(loaded.model, task, list(makers))
    opset = opset_of(plans, options.opset)
    with isolation.fork(_generate, plans, makers, loaded.model, settings, task, scratch) as generated:
        if references.generates(plans, task):
            torch.set_num_threads(_one_less(torch.get_num_threads()))
        hierarchy = Hierarchy(loaded.model)
        models = {}
        for graph_plan in plans:
            emit(Stage(stage=StageName.TRACE, detail=f"{graph_plan.name}.onnx"))
            models[graph_plan.name] = trace_graph(graph_plan, hierarchy, opset, emit)
        interfaces = {name: _interface(model) for name, model in models.items()}
        published = _merge(models, hierarchy)
        notes = (*loaded.notes, *limits.notes(prepared.config), *_fit_optimum(published, loaded.model.config))
        for model in published.values():
            _require_trained(model, loaded.uninitialised)
        graphs = tuple(_describe(model, f"{stem}.onnx", hierarchy) for stem, model in published.items())
        other = _other_arithmetic(checkpoint, prepared, task, name, makers)
        files, calls = _write_and_compute(plans, interfaces, published, makers, other, folder, scratch, emit)
        prompts = generated(emit)
    if other is not None and other.problem is not None:
        notes = (*notes, f"Not compared with PyTorch in {other.dtype}, which it cannot compute here: {other.problem}.")
    return Converted(
        graphs=graphs,
        files=files,
        references=References(calls, prompts, name, other.dtype if other else ""),
        opset=opset,
        architecture=type(loaded.model).__name__,
        dtype=name,
        notes=notes,
    )


def _generate(*args: Any) -> PromptFile | None:
    """:func:`references.generate` in a process of its own, beside the trace: it reads memory more than it computes."""
    *arguments, _ = args
    torch.set_num_threads(1)
    return references.generate(*arguments)


def _other_arithmetic(
    checkpoint: Checkpoint, prepared: Prepared, task: str, dtype: str, makers: Preprocessors
) -> OtherArithmetic | None:
    other = other_dtype(dtype, checkpoint.dtype)
    if other is None:
        return None
    model = load_model(prepared, checkpoint, task, getattr(torch, other)).model
    return OtherArithmetic(other, plan(model, task, list(makers)))


def _write_and_compute(
    plans: Sequence[GraphPlan],
    interfaces: Mapping[str, Interface],
    published: Mapping[str, ir.Model],
    makers: Preprocessors,
    other: OtherArithmetic | None,
    folder: Path,
    scratch: Path,
    emit: Emit,
) -> tuple[tuple[Written, ...], dict[str, ReferenceFile]]:
    """Write the files, and meanwhile run PyTorch on the cases: neither has much use for Python's lock."""
    shapes = {
        stem: {str(value.name): tuple(value.shape or ()) for value in model.graph.inputs}
        for stem, model in published.items()
    }
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max_workers=1) as beside:
        writing = beside.submit(_write, published, folder, emit)

        def leave_a_core() -> None:
            torch.set_num_threads(threads if writing.done() else _one_less(threads))

        calls = references.make(plans, interfaces, shapes, makers, scratch, other, leave_a_core)
        return writing.result(), calls


def _one_less(threads: int) -> int:
    """Threads for torch beside something else that computes: one that waits for a core spins, and holds up the rest."""
    return max(1, threads - 1)


def _interface(model: ir.Model) -> Interface:
    graph = model.graph
    return Interface(
        tuple(str(value.name) for value in graph.inputs), tuple(str(value.name) for value in graph.outputs)
    )


def _merge(models: Mapping[str, ir.Model], hierarchy: Hierarchy) -> dict[str, ir.Model]:
    """The graphs to publish: the decoders without and with cache become one."""
    published = dict(models)
    if {DECODER, DECODER_WITH_PAST} <= models.keys():
        tag = merge.root_tag(hierarchy.infos[""].tag)
        published[DECODER_MERGED] = merge.merge(published.pop(DECODER), published.pop(DECODER_WITH_PAST), tag)
    return published


def _fit_optimum(models: Mapping[str, ir.Model], config: PretrainedConfig) -> tuple[str, ...]:
    """Let Optimum's classes make their first call; returns notes for what had to change."""
    for stem, model in models.items():
        causal = stem != DECODER_MERGED
        if not any(str(value.name).startswith("past_key_values.") for value in model.graph.inputs):
            continue
        empty = empty_cache.of_optimum(config, causal=causal)
        if empty_cache.relax(model.graph, empty):
            return (
                (
                    f"Optimum starts generating with an empty cache of {empty.heads} heads of size {empty.key_size}, "
                    "which this model does not have; the graph accepts it. With CUDA, pass use_io_binding=False."
                ),
            )
    return ()


def _require_trained(model: ir.Model, uninitialised: tuple[str, ...]) -> None:
    used = [name for name in model.graph.initializers if name.removesuffix(".transposed") in uninitialised]
    if used:
        raise CheckpointIncompleteError(
            f"The graph needs {', '.join(used[:5])}, for which the checkpoint holds no values; they would be random. "
            "Choose a task that the checkpoint was trained for (--task), or upload the missing weights."
        )


def _write(models: Mapping[str, ir.Model], folder: Path, emit: Emit) -> tuple[Written, ...]:
    files: list[Written] = []
    for stem, model in models.items():
        total = weights.nbytes(model)
        emit(Stage(stage=StageName.WRITE, detail=f"{stem}.onnx, {total / 1e6:,.0f} MB"))
        files += weights.write(model, folder / f"{stem}.onnx", _Progress(total, emit))
    return tuple(files)


class _Progress:
    """Reports bytes written, of ``total``."""

    def __init__(self, total: int, emit: Emit) -> None:
        self._done, self._total, self._emit = 0, total, emit

    def __call__(self, count: int) -> None:
        self._done += count
        self._emit(Progress(stage=StageName.WRITE, done=self._done, total=self._total, unit="bytes"))


def _describe(model: ir.Model, file: str, hierarchy: Hierarchy) -> Graph:
    tags = [tag for tag in map(Tag.read, all_nodes(model)) if tag is not None]
    owners = Counter(tag.module for tag in tags)
    return Graph(
        file=file,
        inputs=tuple(_tensor(value) for value in model.graph.inputs),
        outputs=tuple(_tensor(value) for value in model.graph.outputs),
        nodes=len(tags),
        traced=sum(tag.origin is Origin.TRACED for tag in tags),
        inferred=sum(tag.origin is Origin.INFERRED for tag in tags),
        modules=tuple(
            ModuleNode(path=info.path, type=info.type, nodes=owners[info.path])
            for info in hierarchy
            if info.path in owners or any(path.startswith(f"{info.path}.") for path in owners)
        ),
    )


def _tensor(value: ir.Value) -> Tensor:
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ())
    return Tensor(name=str(value.name), dtype=value.dtype.name.lower() if value.dtype else "undefined", shape=shape)
