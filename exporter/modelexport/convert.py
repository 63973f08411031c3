"""The part of an export that holds the PyTorch model: load, trace, project, write, and the reference outputs.

Runs in a process of its own (:mod:`modelexport.isolation`), whose memory ends with it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

import modelexport.weights as weights
from modelexport import graph, preprocessors
from modelexport.bridge import Prepared
from modelexport.cases import Preprocessors, make_cases
from modelexport.checkpoint import Checkpoint
from modelexport.contract.errors import CheckpointIncompleteError, ExportFailedError
from modelexport.contract.events import Note, Progress, Stage, StageName
from modelexport.contract.manifest import Graph, ModuleNode, Options, Tensor
from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.tags import Origin, Tag, all_nodes
from modelexport.htp.trace import trace
from modelexport.isolation import Emit
from modelexport.load import load_model
from modelexport.parity import ReferenceFile, reference
from modelexport.plan import GraphPlan, opset_of, plan
from modelexport.weights import Written


@dataclass(frozen=True)
class Converted:
    """What came out: the files, what is in them, and where the reference outputs are."""

    graphs: tuple[Graph, ...]
    files: tuple[Written, ...]
    references: Mapping[str, ReferenceFile]
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
        CheckpointIncompleteError: a graph would contain weights that the checkpoint does not hold.
    """
    emit(Stage(stage=StageName.LOAD, detail=f"{checkpoint.nbytes / 1e6:,.0f} MB of weights"))
    name = "float32" if options.dtype == "float32" else checkpoint.dtype
    loaded = load_model(prepared, checkpoint, task, getattr(torch, name))
    for note in loaded.notes:
        emit(Note(message=note))
    makers = preprocessors.load(prepared.folder)
    plans = plan(loaded.model, task, list(makers))
    opset = opset_of(plans, options.opset)
    hierarchy = Hierarchy(loaded.model)
    graphs, files, references = [], [], {}
    for graph_plan in plans:
        file = f"{graph_plan.name}.onnx"
        emit(Stage(stage=StageName.TRACE, detail=file))
        model = _trace(graph_plan, hierarchy, opset, emit)
        _require_trained(model, loaded.uninitialised)
        files += _write(model, folder / file, emit)
        graphs.append(_describe(model, file, hierarchy))
        references[file] = _reference(graph_plan, makers, model, scratch / f"{graph_plan.name}.npz")
    return Converted(
        graphs=tuple(graphs),
        files=tuple(files),
        references=references,
        opset=opset,
        architecture=type(loaded.model).__name__,
        dtype=name,
        notes=loaded.notes,
    )


def _trace(graph_plan: GraphPlan, hierarchy: Hierarchy, opset: int, emit: Emit) -> ir.Model:
    config, model = graph_plan.config, graph_plan.model
    torch.manual_seed(0)
    inputs = config.rename_ambiguous_inputs(config.generate_dummy_inputs(framework="pt"))
    try:
        with config.patch_model_for_export(model, model_kwargs={}):
            axes = {**graph_plan.inputs, **graph_plan.outputs}
            traced = trace(
                model,
                inputs,
                hierarchy=hierarchy,
                input_names=list(graph_plan.inputs),
                output_names=list(graph_plan.outputs),
                dynamic_axes=axes,
                opset=opset,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError, IndexError) as error:
        if "not enough memory" in str(error):
            raise
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ExportFailedError(
            f"torch cannot trace {type(model).__name__} to ONNX opset {opset}: {type(error).__name__}: {first_line}. "
            "Run with --verbose for the whole story, and please report the model."
        ) from error
    emit(Stage(stage=StageName.PROJECT, detail=f"{len(traced.calls):,} module calls"))
    onnx_model = graph.build(traced, hierarchy, model.state_dict(keep_vars=True), axes)
    untagged = graph.untagged(onnx_model)
    if untagged:
        raise ExportFailedError(
            f"{len(untagged)} nodes of {graph_plan.name} belong to no module that was called ({untagged[0]}, ...). "
            "Please report the model: every node must say where it comes from."
        )
    return onnx_model


def _require_trained(model: ir.Model, uninitialised: tuple[str, ...]) -> None:
    used = [name for name in model.graph.initializers if name.removesuffix(".transposed") in uninitialised]
    if used:
        raise CheckpointIncompleteError(
            f"The graph needs {', '.join(used[:5])}, for which the checkpoint holds no values; they would be random. "
            "Choose a task that the checkpoint was trained for (--task), or upload the missing weights."
        )


def _write(model: ir.Model, path: Path, emit: Emit) -> list[Written]:
    total = weights.nbytes(model)
    emit(Stage(stage=StageName.WRITE, detail=f"{path.name}, {total / 1e6:,.0f} MB"))
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        emit(Progress(stage=StageName.WRITE, done=done, total=total, unit="bytes"))

    return weights.write(model, path, progress)


def _reference(graph_plan: GraphPlan, makers: Preprocessors, model: ir.Model, path: Path) -> ReferenceFile:
    inputs = [str(value.name) for value in model.graph.inputs]
    outputs = [str(value.name) for value in model.graph.outputs]
    triples = []
    for case in make_cases(graph_plan, makers, inputs):
        triples.append((case.name, case.feeds, reference(graph_plan, case, outputs)))
    file = ReferenceFile(path)
    file.save(triples)
    return file


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
            ModuleNode(path=info.path, type=info.type, nodes=owners[info.path]) for info in hierarchy if info.path in owners
        ),
    )


def _tensor(value: ir.Value) -> Tensor:
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ())
    return Tensor(name=str(value.name), dtype=value.dtype.name.lower() if value.dtype else "undefined", shape=shape)
