"""``modelexport extract``: cut one module out of a graph as a model of its own, to run, look at or benchmark it alone.

The rules:

1. The nodes are those of one call of the module and of every call below it; each keeps its tags.
2. The inputs are the values that enter the call, in the order in which the graph computes them, the outputs those that
   leave it. Their names, types and shapes are declared, as far as ONNX's shape inference finds them; an axis that it
   does not know stays open.
3. Initialisers that the nodes read come along; more than 2 GB of them go to a file ``<name>_data`` beside the model.
4. Where the file holds several traces (a merged decoder), the calls of all of them count, those of the ``then`` branch
   first, and what is cut out has no choice left in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

import modelexport.weights as weights
from modelexport import module_tree
from modelexport.contract.errors import ExportFailedError, OutputExistsError, UsageError
from modelexport.htp.branches import Branch, branches
from modelexport.htp.calls import Call, CallTree


@dataclass(frozen=True)
class Extracted:
    """What was written.

    Attributes:
        calls: how often the module is called in the file.
        inputs, outputs: names in order.
    """

    path: Path
    nodes: int
    calls: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def extract(file: Path, module: str, out: Path, *, call: int | None = None) -> Extracted:
    """Write one call of ``module`` in ``file`` as the ONNX model ``out``.

    Args:
        file: a tagged ONNX file; the tagged nodes must know their calls, as those of ``modelexport export`` do.
        module: dotted path; ``""`` for the whole model.
        out: must not exist.
        call: which call of the module, counted from 0; may be left out where there is one.

    Raises:
        UsageError: the module owns no nodes, or is called more than once and ``call`` was left out or is too large.
        OutputExistsError: there is something at ``out``.
        ExportFailedError: what was cut out is no valid model.
    """
    if out.exists():
        raise OutputExistsError(f"{out} exists. Choose another name.")
    model = module_tree.load(file)
    found = [
        (branch, candidate)
        for branch in branches(model)
        for candidate in sorted(CallTree(branch.model.graph).finished(), key=lambda candidate: candidate.frame.index)
        if candidate.frame.path == module
    ]
    branch, chosen = _choose(model, file, module, found, call)
    cut = _cut(branch.model, chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        weights.write(cut, out)
        onnx.checker.check_model(out)
    except onnx.checker.ValidationError as error:
        out.unlink()
        out.with_name(f"{out.name}_data").unlink(missing_ok=True)
        first_line = str(error).strip().splitlines()[0]
        raise ExportFailedError(f"{module} cannot stand alone as an ONNX model: {first_line}") from error
    return Extracted(out, len(chosen.nodes), len(found), _names(cut.graph.inputs), _names(cut.graph.outputs))


def _choose(
    model: ir.Model, file: Path, module: str, found: Sequence[tuple[Branch, Call]], call: int | None
) -> tuple[Branch, Call]:
    if not found:
        module_tree.build(model, file.name, {}).at(module)  # says what is near
        raise UsageError(
            f"{module} is never called in {file.name}: it is a list, or its parts are called from outside it."
        )
    if call is None and len(found) > 1:
        raise UsageError(
            f"{module} is called {len(found)} times in {file.name}. Choose one with --call 0..{len(found) - 1}."
        )
    if (call or 0) >= len(found):
        raise UsageError(
            f"{module} is called {len(found)} times in {file.name}, so --call is at most {len(found) - 1}."
        )
    return found[call or 0]


def _cut(model: ir.Model, call: Call) -> ir.Model:
    if not call.leaving:
        raise UsageError(f"Nothing that {call.frame.path} computes is used outside it, so it would have no outputs.")
    common_passes.ShapeInferencePass()(model)
    graph = ir.convenience.extract(model.graph, call.entering, call.leaving)
    graph.name = call.frame.path or model.graph.name
    return ir.Model(
        graph, ir_version=model.ir_version, producer_name=model.producer_name, functions=model.functions.values()
    )


def _names(values: Sequence[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values)
