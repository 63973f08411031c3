"""One graph out of the decoder without and the decoder with a KV cache: ``decoder_model_merged.onnx``.

The layout is that of Optimum's ``merge_decoders`` (``optimum/onnx/graph_transformations.py``, optimum-onnx 0.1.0),
which ``ORTModelForSeq2SeqLM`` and its kin load by default: an ``If`` on the input ``use_cache_branch``, the decoder
with cache in its ``then`` branch. Optimum merges two finished files; here two graphs are merged whose weights are
still views of the checkpoint, so they are shared by identity, written once, and every node keeps its tag.
"""

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from modelexport.htp.tags import Frame, Origin, Tag

USE_CACHE_BRANCH = "use_cache_branch"


def merge(without_past: ir.Model, with_past: ir.Model, root: Tag) -> ir.Model:
    """The merged decoder; both arguments are used up.

    1. Inputs are those of both graphs, by name, the decoder's first, then ``use_cache_branch`` (bool ``[1]``).
    2. Outputs are those of the decoder without past. The keys and values of the encoder, which the other does not
       return because they do not change, become empty constants in its branch, as in Optimum's merge; they carry the
       tag of the node that computes them in the first branch, origin ``inferred``.
    3. Initialisers stand in the main graph. Two that are the same memory, or hold equal values, are one.
    4. The ``If`` node is tagged with ``root``: both of its branches are the model's own ``forward``.

    Args:
        root: tag of the model.
    """
    graph = without_past.graph
    inputs = _merged_inputs(graph, with_past.graph)
    initializers = _merged_initializers(graph, with_past.graph, {str(value.name) for value in inputs})
    for value in (*inputs, *initializers):
        value_graph = value.graph
        if value_graph is not None and value.is_graph_input():
            value_graph.inputs.remove(value)
        if value_graph is not None and value.is_initializer():
            del value_graph.initializers[str(value.name)]
    order = [(str(value.name), value.dtype, value.shape) for value in graph.outputs]
    _return_empty_constants(graph, with_past.graph)
    condition = ir.Value(name=USE_CACHE_BRANCH, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([1]))
    node = ir.Node(
        "",
        "If",
        [condition],
        [
            ir.AttrGraph("then_branch", _branch(with_past.graph, "with_past", [name for name, _, _ in order])),
            ir.AttrGraph("else_branch", _branch(graph, "no_past", [name for name, _, _ in order])),
        ],
        outputs=[ir.Value(name=name, type=ir.TensorType(dtype), shape=shape) for name, dtype, shape in order if dtype],
        name=f"/{USE_CACHE_BRANCH}/If",
    )
    root.write(node)
    merged = ir.Graph(
        [*inputs, condition],
        node.outputs,
        nodes=[node],
        initializers=initializers,
        opset_imports={**with_past.graph.opset_imports, **graph.opset_imports},
        name="merged",
    )
    model = ir.Model(merged, ir_version=without_past.ir_version, producer_name=without_past.producer_name)
    for function in (*without_past.functions.values(), *with_past.functions.values()):
        model.functions[function.identifier()] = function
    return model


def _merged_inputs(first: ir.Graph, second: ir.Graph) -> list[ir.Value]:
    known = {str(value.name): value for value in first.inputs}
    for value in tuple(second.inputs):
        same = known.setdefault(str(value.name), value)
        if same is not value:
            value.replace_all_uses_with(same)
    return list(known.values())


def _merged_initializers(first: ir.Graph, second: ir.Graph, taken: set[str]) -> list[ir.Value]:
    known: dict[tuple[object, ...], list[ir.Value]] = {}
    for value in first.initializers.values():
        known.setdefault(_kind(value), []).append(value)
    merged = list(first.initializers.values())
    names = taken | {str(value.name) for value in merged}
    for value in tuple(second.initializers.values()):
        same = next((other for other in known.get(_kind(value), ()) if _equal(value, other)), None)
        if same is not None:
            value.replace_all_uses_with(same)
            continue
        del second.initializers[str(value.name)]
        while value.name in names:
            value.name = f"{value.name}_"
        names.add(str(value.name))
        second.register_initializer(value)
        merged.append(value)
    return merged


def _kind(value: ir.Value) -> tuple[object, ...]:
    tensor = value.const_value
    return (tensor.dtype, tuple(tensor.shape)) if tensor is not None else ()


def _equal(one: ir.Value, other: ir.Value) -> bool:
    """Whether two initialisers of one dtype and shape hold the same values; the same memory is not read."""
    a, b = one.const_value, other.const_value
    if a is None or b is None:
        return False
    if isinstance(a, TorchTensor) and isinstance(b, TorchTensor):
        same_memory = a.raw.data_ptr() == b.raw.data_ptr() and a.raw.stride() == b.raw.stride()
        return same_memory or torch.equal(a.raw, b.raw)
    return a.tobytes() == b.tobytes()


def _return_empty_constants(first: ir.Graph, second: ir.Graph) -> None:
    """Let ``second`` return, for each output that it lacks, an empty constant: 0 on the first dynamic axis, 1 on
    others.
    """
    present = {value.name for value in second.outputs}
    for value in first.outputs:
        if value.name in present:
            continue
        shape = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
        shape[next(axis for axis, dim in enumerate(value.shape or ()) if not isinstance(dim, int))] = 0
        dtype = value.dtype or ir.DataType.FLOAT
        tensor = ir.Tensor(torch.zeros(shape).numpy().astype(dtype.numpy()), dtype=dtype)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=f"/{value.name}/Constant")
        producer = value.producer()
        tag = Tag.read(producer) if producer is not None else None
        if tag is not None:
            replace(tag, origin=Origin.INFERRED).write(node)
        node.outputs[0].name = value.name
        node.outputs[0].type = value.type
        node.outputs[0].shape = value.shape
        second.append(node)
        second.outputs.append(node.outputs[0])


def _branch(graph: ir.Graph, name: str, outputs: Iterable[str]) -> ir.Graph:
    """The nodes of ``graph`` as the body of an ``If``, with outputs in the given order."""
    by_name = {str(value.name): value for value in graph.outputs}
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    return ir.Graph([], [by_name[output] for output in outputs], nodes=nodes, name=name)


def root_tag(hierarchy_tag: str) -> Tag:
    """The tag of a node that is the model's own ``forward`` and nothing within it."""
    return Tag(hierarchy_tag, "", Origin.INFERRED, (Frame("", 0),))
