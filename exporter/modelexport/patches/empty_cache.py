"""Let a graph accept the empty KV cache that Optimum makes for the first call, whatever heads it has.

optimum-onnx 0.1.0: ``ORTModelForCausalLM`` and ``ORTDecoderForSeq2Seq`` start from zeros of shape ``[batch, heads, 0,
hidden size / heads]``, by tables of model types. Where the model has another head size (Qwen3, Gemma 2, FLAN-T5
small) or fewer key-value heads than the table thinks (OLMo 2, Phi-3), ONNX Runtime refuses the very first call: ``Got
invalid dimensions for input: past_key_values.0.key``. No call could ever be made with such a graph.

An empty tensor holds no number, so its shape is ours to choose:

1. An axis on which the empty cache differs from the model's becomes dynamic in the graph's input.
2. A decoder-only model is traced with a ``Reshape`` of the cache to its own heads and head size, where the attention
   reads it. For a real cache this changes nothing and costs nothing. (In a merged decoder the first call reads no
   cache.)
3. Inputs whose shape is what Optimum expects stay as they are.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForCausalLM
from optimum.onnxruntime.modeling_seq2seq import ORTDecoderForSeq2Seq
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicLayer

_NAMES = ("past_key_values.0.key", "past_key_values.0.value")


@dataclass(frozen=True)
class EmptyCache:
    """Heads, and size per head of keys and of values, of a cache."""

    heads: int
    key_size: int
    value_size: int

    def fits(self, cache: Any) -> bool:
        """Whether every layer of a cache of tensors has these sizes."""
        return all(
            (tensor.shape[1], tensor.shape[3]) == (self.heads, size)
            for layer in cache
            for tensor, size in zip(layer, (self.key_size, self.value_size) * 2, strict=False)
        )


def of_optimum(config: PretrainedConfig, *, causal: bool) -> EmptyCache:
    """The empty cache that Optimum makes for a model of ``config``: asked of its class, on a graph that does
    nothing.
    """
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
    inputs = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape) for name in _NAMES]
    nodes = [ir.Node("", "Identity", [value]) for value in inputs]
    for node, name in zip(nodes, _NAMES, strict=True):
        output = node.outputs[0]
        output.name, output.type, output.shape = name.replace("past_key_values", "present"), inputs[0].type, shape
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 18}, name="probe")
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()


class _Reshape(torch.autograd.Function):
    """The identity in PyTorch; in ONNX a ``Reshape`` of ``[batch, any, length, any]`` to the model's heads and head
    size.
    """

    @staticmethod
    def forward(_: Any, cache: torch.Tensor, heads: int, size: int) -> torch.Tensor:  # noqa: ARG004
        return cache.view_as(cache)

    @staticmethod
    def symbolic(g: Any, cache: Any, heads: int, size: int) -> Any:
        return g.op("Reshape", cache, g.op("Constant", value_t=torch.tensor([0, heads, -1, size])))


@contextmanager
def reshaped() -> Iterator[None]:
    """Trace with rule 2. Enter it inside Optimum's patches, which replace the same method."""
    update = DynamicLayer.update

    def reshape_and_update(
        self: DynamicLayer, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if self.keys is not None:
            self.keys = _Reshape.apply(self.keys, int(keys.shape[1]), int(keys.shape[3]))
            self.values = _Reshape.apply(self.values, int(values.shape[1]), int(values.shape[3]))
        return update(self, keys, values, *args, **kwargs)

    DynamicLayer.update = reshape_and_update
    try:
        yield
    finally:
        DynamicLayer.update = update


def relax(graph: ir.Graph, empty: EmptyCache) -> bool:
    """Rule 1 on the inputs of ``graph``; returns whether any changed."""
    changed = False
    for value in graph.inputs:
        if not str(value.name).startswith("past_key_values.") or value.shape is None or len(value.shape) != 4:
            continue
        size = empty.key_size if str(value.name).endswith(".key") else empty.value_size
        names = {1: "num_key_value_heads", 3: "head_size"}
        shape = [
            names[axis] if axis in names and dim != {1: empty.heads, 3: size}[axis] else dim
            for axis, dim in enumerate(value.shape)
        ]
        changed |= shape != list(value.shape)
        value.shape = ir.Shape(shape)
    return changed


def needed(config: PretrainedConfig, inputs: Mapping[str, Any]) -> bool:
    """Whether Optimum's empty cache does not fit the cache among the inputs of a decoder-only graph."""
    return not of_optimum(config, causal=True).fits(inputs["past_key_values"])
