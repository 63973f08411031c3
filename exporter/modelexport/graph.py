"""From a trace to the ONNX graph that we publish: weights attached, cleaned, tagged, named.

No weight is copied or read here: initialisers are views of the checkpoint until :mod:`modelexport.weights` writes them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import torch
from onnx_ir.tensor_adapters import TorchTensor

from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.project import InferTags, ProjectCalls
from modelexport.htp.tags import MODULE, Tag, all_nodes
from modelexport.htp.trace import Trace
from modelexport.tied import ShareTransposedWeights

IR_VERSION = 10
"""The first ONNX IR version in which nodes carry ``metadata_props``."""

_SMALL = 1024  # bytes; equal constants up to this size are stored once


def build(
    trace: Trace,
    hierarchy: Hierarchy,
    parameters: Mapping[str, torch.Tensor],
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> ir.Model:
    """The publishable graph of ``trace``, its weights still views of the checkpoint.

    Args:
        parameters: state dict of the traced module, to name initialisers after the tensors they came from.
        dynamic_axes: per input or output, axis number -> axis name; every other axis of an output is static.
    """
    model = ir.from_proto(trace.model)
    model.ir_version = IR_VERSION
    model.producer_name = "modelexport"
    model.producer_version = None
    _attach_weights(model.graph, trace.weights)
    ProjectCalls(trace, hierarchy)(model)
    clean(model)
    ShareTransposedWeights()(model)
    InferTags()(model)
    _fix_output_shapes(model.graph.outputs, trace.outputs, dynamic_axes)
    _name_nodes(model)
    _name_initializers(model.graph, parameters)
    return model


def clean(model: ir.Model) -> None:
    """Remove what only the exporter needed: constants as nodes, ``Identity`` chains, unused nodes, equal constants."""
    ir.passes.Sequential(
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common_passes.LiftSubgraphInitializersToMainGraphPass(),
        _IdentityElimination(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.DeduplicateInitializersPass(size_limit=_SMALL),
        common_passes.TopologicalSortPass(),
    )(model)


class _IdentityElimination(common_passes.IdentityEliminationPass):
    """onnx-ir's pass, but it leaves an ``Identity`` alone that carries a value of an outer graph out of a body.

    onnx-ir 1.1.0 would make the outer value an output of the body, which ONNX forbids, and fails on the second body.
    """

    def _try_eliminate_identity_node(self, node: ir.Node) -> bool:
        source = node.inputs[0] if node.inputs else None
        carries_out = any(value.is_graph_output() for value in node.outputs)
        if carries_out and source is not None and (source.producer() is None or source.graph is not node.graph):
            return False
        return bool(super()._try_eliminate_identity_node(node))


def _attach_weights(graph: ir.Graph, weights: Mapping[str, torch.Tensor]) -> None:
    """Turn the inputs that stand for weights into initialisers; one that two names share is stored once."""
    stored: dict[tuple[object, ...], ir.Value] = {}
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        tensor = weights[str(value.name)].detach()
        if not value.uses():
            continue
        identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        known = stored.get(identity)
        if known is not None and tensor.numel():
            value.replace_all_uses_with(known)
            continue
        stored[identity] = value
        value.const_value = TorchTensor(tensor, name=value.name)
        value.shape = ir.Shape(tuple(tensor.shape))
        graph.register_initializer(value)


def _fix_output_shapes(
    outputs: Sequence[ir.Value],
    traced: Sequence[torch.Tensor],
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> None:
    """Declare exactly the axes dynamic that the plan says: torch's shape inference invents others.

    Optimum runs the model in ONNX Runtime for this (``OnnxConfig.fix_dynamic_axes``); the trace has the shapes already.
    """
    if len(outputs) != len(traced):
        return
    for value, tensor in zip(outputs, traced, strict=True):
        axes = dynamic_axes.get(str(value.name), {})
        value.shape = ir.Shape([axes.get(axis, size) for axis, size in enumerate(tensor.shape)])


def _name_nodes(model: ir.Model) -> None:
    """Name every node ``/<module path>/<operator>``, counted from the second on, and its outputs after it."""
    keep = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    count: Counter[str] = Counter()
    for node in all_nodes(model):
        path = node.metadata_props.get(MODULE, "")
        base = f"/{path}/{node.op_type}" if path else f"/{node.op_type}"
        node.name = f"{base}_{count[base]}" if count[base] else base
        count[base] += 1
        for index, value in enumerate(node.outputs):
            if value.name and value.name not in keep:
                value.name = f"{node.name}_output_{index}"


def _name_initializers(graph: ir.Graph, parameters: Mapping[str, torch.Tensor]) -> None:
    """Name initialisers after the parameter they are, or are a view of; any other after the node that reads it
    first.
    """
    whole = {(tensor.data_ptr(), tuple(tensor.shape), tensor.stride()): name for name, tensor in parameters.items()}
    start = {tensor.data_ptr(): name for name, tensor in parameters.items() if tensor.numel()}
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    renamed: dict[str, ir.Value] = {}
    for value in tuple(graph.initializers.values()):
        raw = value.const_value.raw if isinstance(value.const_value, TorchTensor) else None
        if raw is not None and (raw.data_ptr(), tuple(raw.shape), raw.stride()) in whole:
            name = whole[raw.data_ptr(), tuple(raw.shape), raw.stride()]
        elif raw is not None and raw.data_ptr() in start:
            name = f"{start[raw.data_ptr()]}.{'transposed' if raw.dim() == 2 else 'view'}"
        elif value.uses():
            use = min(value.uses(), key=lambda use: (str(use.node.name), use.idx))
            name = f"{use.node.name}_input_{use.idx}"
        else:
            name = str(value.name)
        while name in renamed or name in taken:
            name += "_"
        renamed[name] = value
    for value in renamed.values():
        del graph.initializers[str(value.name)]
    for name, value in renamed.items():
        value.name = name
        graph.register_initializer(value)


def untagged(model: ir.Model) -> list[str]:
    """Names of the nodes that have no tag; empty for everything that we publish."""
    return [str(node.name) for node in all_nodes(model) if Tag.read(node) is None]
