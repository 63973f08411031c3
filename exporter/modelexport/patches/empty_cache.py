"""Let a graph accept the empty KV cache that Optimum makes for the first call, whatever heads it has.

optimum-onnx 0.1.0: ``ORTModelForCausalLM`` and ``ORTDecoderForSeq2Seq`` start from zeros of shape ``[batch, heads, 0,
hidden size / heads]``, by tables of model types. Where the model has another head size (Qwen3, Gemma 2, T5 small v1.1) or fewer
key-value heads than the table thinks (OLMo 2, Phi-3), ONNX Runtime refuses the very first call: ``Got invalid dimensions for
input: past_key_values.0.key``. No call could ever be made with such a graph.

An empty tensor holds no number, so its shape is ours to choose:

1. An axis on which the empty cache differs from the model's becomes dynamic in the graph's input.
2. A decoder-only graph reshapes the input back to the model's heads and head size, which for a real cache changes
   nothing and costs nothing. (In a merged decoder the first call does not read the cache.)
3. Inputs whose shape is what Optimum expects stay as they are.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir import DataType
from optimum.onnxruntime import ORTModelForCausalLM
from optimum.onnxruntime.modeling_seq2seq import ORTDecoderForSeq2Seq
from transformers import PretrainedConfig

from modelexport.htp.tags import Origin, Tag

_NAMES = ("past_key_values.0.key", "past_key_values.0.value")


@dataclass(frozen=True)
class EmptyCache:
    """Heads, and size per head of keys and of values, of the cache with which an ORT class starts."""

    heads: int
    key_size: int
    value_size: int


def of_optimum(config: PretrainedConfig, *, causal: bool) -> EmptyCache:
    """The empty cache that Optimum makes for a model of ``config``: asked of its own class, on a graph that does nothing."""
    config = copy.deepcopy(config)
    session = onnxruntime.InferenceSession(_graph_with_cache(), providers=["CPUExecutionProvider"])
    session._model_path = "probe.onnx"  # where Optimum's constructors look for the folder
    if causal:
        model: Any = ORTModelForCausalLM(config=config, session=session, model_save_dir=".")
    else:
        model = ORTDecoderForSeq2Seq(config=config, session=session)
    heads = model.num_key_value_heads if causal else model.num_attention_heads
    key = getattr(model, "qk_head_dim", None) or model.embed_size_per_head
    value = getattr(model, "v_head_dim", None) or model.embed_size_per_head
    return EmptyCache(heads, key, value)


def _graph_with_cache() -> bytes:
    """The smallest graph with a cache: it returns its inputs."""
    shape = ir.Shape(["batch", "heads", "length", "size"])
    inputs = [ir.Value(name=name, type=ir.TensorType(DataType.FLOAT), shape=shape) for name in _NAMES]
    nodes = [ir.Node("", "Identity", [value]) for value in inputs]
    for node, name in zip(nodes, _NAMES, strict=True):
        output = node.outputs[0]
        output.name, output.type, output.shape = name.replace("past_key_values", "present"), inputs[0].type, shape
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 18}, name="probe")
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()


class AcceptEmptyCache(ir.passes.InPlacePass):
    """Make a graph accept an :class:`EmptyCache`, by the rules of this module."""

    def __init__(self, empty: EmptyCache, *, causal: bool) -> None:
        super().__init__()
        self._empty = empty
        self._causal = causal

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for value in model.graph.inputs:
            if value.name and value.name.startswith("past_key_values.") and value.shape is not None:
                modified |= self._accept(model.graph, value, tuple(value.shape))
        return ir.passes.PassResult(model, modified)

    def _accept(self, graph: ir.Graph, value: ir.Value, real: tuple[Any, ...]) -> bool:
        size = self._empty.key_size if str(value.name).endswith(".key") else self._empty.value_size
        expected = {1: self._empty.heads, 3: size}
        if len(real) != 4 or not all(isinstance(real[axis], int) for axis in expected):
            return False
        different = {axis for axis, wanted in expected.items() if real[axis] != wanted}
        if not different:
            return False
        names = {1: "num_key_value_heads", 3: "head_size"}
        value.shape = ir.Shape([names[axis] if axis in different else dim for axis, dim in enumerate(real)])
        if self._causal and value.uses():
            self._restore(graph, value, (real[1], real[3]))
        return True

    @staticmethod
    def _restore(graph: ir.Graph, value: ir.Value, heads_and_size: tuple[int, int]) -> None:
        """Let every reader of ``value`` see it as ``[batch, heads, length, size]``."""
        heads, size = heads_and_size
        first = next(node for node in graph if value in node.inputs)
        shape = ir.Value(
            name=f"{value.name}.shape",
            const_value=ir.Tensor(np.array([0, heads, -1, size], dtype=np.int64)),
            type=ir.TensorType(DataType.INT64),
            shape=ir.Shape([4]),
        )
        graph.register_initializer(shape)
        node = ir.Node("", "Reshape", [value, shape], name=f"/{value.name}/Reshape")
        node.outputs[0].name = f"{value.name}.reshaped"
        node.outputs[0].type = value.type
        for use in tuple(value.uses()):
            use.node.replace_input_with(use.idx, node.outputs[0])
        node.replace_input_with(0, value)
        tag = Tag.read(first)
        if tag is not None:
            replace(tag, origin=Origin.INFERRED).write(node)
        graph.insert_before(first, node)
