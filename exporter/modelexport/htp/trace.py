"""Trace a model to an ONNX graph without weights, and record which module call every node belongs to.

How the hierarchy is known: while TorchScript traces, ``Module._slow_forward`` asks
``torch.jit._trace._trace_module_map`` for the scope name of each module that is called, and the exporter writes the
scopes into the node names. The map that torch makes there holds shortened attribute names, so names mislead; ours
(:class:`_CallRecorder`) hands out a fresh key per *call* and keeps the table from key to call. Nothing is parsed but
our own keys, and two calls of one module stay apart.

How the weights stay out: the graph is exported with ``export_params=False``, and what would have become initialisers is
kept as the exporter's own table from name to tensor. After torch's constant folding these are views (transposed, say)
of the memory-mapped checkpoint, so nothing is copied here; :mod:`modelexport.weights` streams them later.

Bodies of ``@torch.jit.script`` functions (DeBERTa's) lose their scope when torch inlines them; :func:`_inline_calls`
gives every inlined node the scope of its call. What torch puts in the place of an assignment to a slice has none
either; :func:`_scope_all` gives it that of the assignment.

Seams of torch 2.13 used here: ``_export``, ``_setup_trace_module_map``, ``_trace_and_get_graph_from_model`` and
``_model_to_graph`` in ``torch/onnx/_internal/torchscript_exporter/utils.py``, and two passes that they call,
``torch._C._jit_pass_onnx`` and ``_jit_pass_onnx_graph_shape_type_inference``. The same names exist since 2.9.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch.onnx._internal.torchscript_exporter import utils as torchscript

from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.tags import Frame, Stack

_SHAPE = 64
"""Elements; more than any shape has."""

_KEY = re.compile(r"call(\d+)")
_SEAMS = ("_setup_trace_module_map", "_trace_and_get_graph_from_model", "_model_to_graph")


@dataclass(frozen=True)
class Call:
    """One execution of one module's ``forward``.

    Attributes:
        index: position in the order of calls; the root call is 0.
        parent: index of the call that made this one; None for the root call.
        path: dotted path of the module, ``""`` for the root of the hierarchy.
    """

    index: int
    parent: int | None
    path: str


@dataclass(frozen=True)
class Trace:
    """What one trace yields.

    Attributes:
        model: ONNX graph whose weights are graph inputs; node names end in the keys of their calls.
        weights: tensor of every such input, by name: views of the model's parameters and buffers wherever possible.
        calls: all module calls, by index.
        outputs: what the model returned, flattened in graph order; tensors of the traced inputs' shapes.
    """

    model: onnx.ModelProto
    weights: Mapping[str, torch.Tensor]
    calls: Sequence[Call]
    outputs: tuple[torch.Tensor, ...]

    def call_of(self, node_name: str) -> Call | None:
        """The innermost call in which the node of this name was executed; None where torch recorded no scope."""
        scope, _, _ = node_name.rpartition("/")
        match = _KEY.fullmatch(scope.rpartition("/")[2])
        return self.calls[int(match[1])] if match else None

    def stack_of(self, call: Call) -> Stack:
        """``call`` and those that it runs in, outermost first."""
        frames = [Frame(call.path, call.index)]
        while call.parent is not None:
            call = self.calls[call.parent]
            frames.append(Frame(call.path, call.index))
        return tuple(reversed(frames))


class _CallRecorder:
    """Stands in for ``torch.jit._trace._trace_module_map``: names the scope of every module call."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self.calls: list[Call] = []

    def get(self, module: torch.nn.Module, default: None = None) -> str | None:
        """The scope name of the call that begins now, or ``default`` for a module that the model does not hold."""
        caller = self._caller()
        path = self._hierarchy.path_of(module, caller.path if caller else None)
        if path is None:
            return default
        call = Call(len(self.calls), caller.index if caller else None, path)
        self.calls.append(call)
        return f"{type(module).__name__}::call{call.index}"

    def _caller(self) -> Call | None:
        state = torch._C._get_tracing_state()
        keys = _KEY.findall(state.current_scope()) if state else []
        return self.calls[int(keys[-1])] if keys else None


def trace(
    model: torch.nn.Module,
    inputs: Mapping[str, Any],
    *,
    hierarchy: Hierarchy,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> Trace:
    """Trace ``model(**inputs)``.

    Args:
        model: the module to export, in eval mode, already patched for export.
        inputs: keyword arguments of ``forward``: tensors, or nested tuples of tensors (a KV cache).
        hierarchy: tree of the whole model of which ``model`` may be a part.
        input_names: ONNX names, in the order of ``forward``.
        output_names: ONNX names, in the order of the outputs.
        dynamic_axes: per input or output, axis number -> axis name.
        opset: ONNX operator set version.

    Raises:
        torch.onnx.errors.OnnxExporterError: torch cannot express an operation in ONNX.
    """
    recorder = _CallRecorder(hierarchy)
    captured: dict[str, Any] = {}
    buffer = io.BytesIO()
    with _torch_seams(recorder, captured), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", UserWarning)
        torchscript._export(
            model,
            (dict(inputs),),
            buffer,
            export_params=False,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
            opset_version=opset,
            do_constant_folding=True,
            training=torch.onnx.TrainingMode.PRESERVE,  # EVAL fuses BatchNorm into Conv: one node of two modules
            keep_initializers_as_inputs=True,  # skips torch's deduplication, which compares all weights byte by byte
        )
    outputs, _ = torch.jit._flatten((captured["outputs"],))
    return Trace(onnx.ModelProto.FromString(buffer.getvalue()), captured["weights"], recorder.calls, tuple(outputs))


@contextmanager
def _torch_seams(recorder: _CallRecorder, captured: dict[str, Any]) -> Iterator[None]:
    originals = {name: getattr(torchscript, name) for name in _SEAMS}
    convert, infer_shapes = torch._C._jit_pass_onnx, torch._C._jit_pass_onnx_graph_shape_type_inference

    def install_recorder(*_: Any) -> set[str]:
        torch.jit._trace._trace_module_map = recorder
        return set()

    def trace_and_inline(*args: Any, **kwargs: Any) -> Any:
        graph, outputs = originals["_trace_and_get_graph_from_model"](*args, **kwargs)
        _inline_calls(graph)
        return graph, outputs

    def capture_weights(*args: Any, **kwargs: Any) -> Any:
        graph, weights, outputs = originals["_model_to_graph"](*args, **kwargs)
        captured.update(weights=dict(weights), outputs=outputs)
        return graph, weights, outputs

    for name, replacement in zip(_SEAMS, (install_recorder, trace_and_inline, capture_weights), strict=True):
        setattr(torchscript, name, replacement)
    torch._C._jit_pass_onnx = _scope_all(convert)
    torch._C._jit_pass_onnx_graph_shape_type_inference = _without_large_weights(infer_shapes)
    try:
        yield
    finally:
        torch._C._jit_pass_onnx = convert
        torch._C._jit_pass_onnx_graph_shape_type_inference = infer_shapes
        for name, original in originals.items():
            setattr(torchscript, name, original)


def _without_large_weights(infer: Callable[..., None]) -> Callable[..., None]:
    """Torch's shape inference ``infer``, which would serialise every weight for the node that reads it, and read none.

    The types of the graph's inputs hold the shapes of the weights. Only what may itself *be* a shape is handed over.
    """

    def infer_without(graph: torch._C.Graph, weights: Mapping[str, torch.Tensor], opset: int) -> None:
        infer(graph, {name: tensor for name, tensor in weights.items() if tensor.numel() <= _SHAPE}, opset)

    return infer_without


def _inline_calls(graph: torch._C.Graph) -> None:
    """Inline scripted functions as ``_jit_pass_inline`` does, but keep their nodes in the scope of the call.

    The pass puts the body of a function exactly where its ``prim::CallFunction`` stood, and right before that stands
    the ``prim::Constant`` that holds the function, in the same scope: every node that is new after such a constant
    takes its metadata.
    """
    if graph.findNode("prim::CallFunction") is None:
        return
    before = {_first_output(node) for node in graph.nodes()}
    callee: torch._C.Node | None = None
    torch._C._jit_pass_inline(graph)
    for node in graph.nodes():
        if _first_output(node) not in before:
            if callee is not None:
                _copy_scope(callee, node)
        elif node.kind() == "prim::Constant" and "Function" in str(node.output().type().kind()):
            callee = node
        else:
            callee = None if node.kind() != "prim::Constant" else callee


def _scope_all(convert: Callable[..., torch._C.Graph]) -> Callable[..., torch._C.Graph]:
    """Torch's pass ``convert``, from its operations to ONNX's, after which every node has a scope.

    The pass keeps the scope of what it converts. But for ``x[a:b] = y`` it makes nodes of its own, which compute the
    indexes for the ``ScatterND`` and are read by nothing else: each takes the scope of the node that reads it.
    """

    def convert_and_scope(*args: Any, **kwargs: Any) -> torch._C.Graph:
        graph = convert(*args, **kwargs)
        for node in reversed(list(graph.nodes())):
            if not node.scopeName():
                readers = (use.user for value in node.outputs() for use in value.uses())
                reader = next((reader for reader in readers if reader.scopeName()), None)
                if reader is not None:
                    _copy_scope(reader, node)
        return graph

    return convert_and_scope


def _copy_scope(source: torch._C.Node, node: torch._C.Node) -> None:
    node.copyMetadata(source)
    for block in node.blocks():
        for inner in block.nodes():
            _copy_scope(source, inner)


def _first_output(node: torch._C.Node) -> str:
    return next((value.debugName() for value in node.outputs()), "")
