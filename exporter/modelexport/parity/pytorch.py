"""Run the PyTorch module of a graph, unpatched, and read its outputs by the names that they have in ONNX."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optimum.exporters.onnx.model_patcher import postprocess_past_key_values, preprocess_past_key_values
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from modelexport.plan import GraphPlan

Legacy = tuple[tuple[torch.Tensor, ...], ...]
"""A KV cache as plain tensors: per layer key and value, each ``[batch, heads, length, head size]``, then those of the
cross attention where the model has one."""


@torch.no_grad()
def call(plan: GraphPlan, inputs: Mapping[str, Any], logits: int = 0) -> Mapping[str, Any]:
    """What the module returns for ``inputs``; a cache and encoder outputs may be plain tuples of tensors.

    Args:
        logits: at how many of the last positions the logits are wanted, where the module can leave some out; 0: at all.
    """
    arguments = dict(inputs)
    parameters = inspect.signature(plan.model.forward).parameters
    if "logits_to_keep" in parameters:
        arguments["logits_to_keep"] = logits
    if arguments.get("past_key_values") is not None:
        arguments["past_key_values"] = preprocess_past_key_values(arguments["past_key_values"])
    if isinstance(arguments.get("encoder_outputs"), tuple):
        arguments["encoder_outputs"] = BaseModelOutput(last_hidden_state=arguments["encoder_outputs"][0])
    if "use_cache" in parameters:
        arguments["use_cache"] = plan.returns_cache
        if plan.returns_cache:
            arguments.setdefault("past_key_values", empty_cache(plan))
    return plan.model(**arguments)


def empty_cache(plan: GraphPlan) -> Cache:
    """A cache that keeps everything: one that a model makes for itself drops what its sliding window has passed."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if plan.is_decoder_of_pair else DynamicCache()


def legacy(plan: GraphPlan, outputs: Mapping[str, Any]) -> Legacy:
    """The cache among ``outputs`` as plain tensors, as many per layer as the graph takes."""
    cache = postprocess_past_key_values(outputs["past_key_values"], output_names=list(plan.inputs))
    return tuple(tuple(layer) for layer in cache)


def by_onnx_name(plan: GraphPlan, outputs: Mapping[str, Any] | torch.Tensor | Sequence[Any]) -> dict[str, torch.Tensor]:
    """Flatten as Optimum does (``optimum/exporters/onnx/convert.py``, ``_run_validation``)."""
    flat: dict[str, torch.Tensor] = {}
    renames = plan.config.torch_to_onnx_output_map
    for name, value in outputs.items() if isinstance(outputs, Mapping) else ():
        name = renames.get(name, name)
        if name == "past_key_values" and value is not None:
            name, value = "present", postprocess_past_key_values(value, output_names=list(plan.outputs))
        if isinstance(value, torch.Tensor):
            flat[name] = value
        elif isinstance(value, (list, tuple)) and value:
            flat.update(plan.config.flatten_output_collection_property(name, value))
    return {name: value for name, value in flat.items() if isinstance(value, torch.Tensor)}
