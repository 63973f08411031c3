"""Which graphs a model is exported as, with which inputs, outputs and dynamic axes: Optimum's own answer.

A plan is one ONNX file to be: the module to trace and the OnnxConfig that knows its inputs. Encoders have one,
encoder-decoders several.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optimum.exporters.onnx.model_configs  # noqa: F401  registers the ONNX configs with the TasksManager
import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.utils import _get_submodels_and_onnx_configs
from optimum.exporters.tasks import TasksManager
from transformers import PreTrainedModel

from modelexport.contract.errors import UnsupportedArchitectureError
from modelexport.patches.adapters import ADAPTERS

Axes = Mapping[str, Mapping[int, str]]
"""Per input or output of a graph: axis number -> axis name."""

ENCODER, DECODER, DECODER_WITH_PAST = "encoder_model", "decoder_model", "decoder_with_past_model"
DECODER_MERGED = "decoder_model_merged"
"""Names of the graphs of an encoder-decoder (``optimum/exporters/onnx/constants.py``)."""

_VARIANTS = {"sam": "monolith"}
"""Where Optimum's default layout is several files that none of its classes loads together."""

_FLOAT_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class GraphPlan:
    """One graph to export.

    Attributes:
        name: file name without suffix, Optimum's own (``model``, ``encoder_model``, ...).
        model: the module whose ``forward`` becomes the graph: the whole model or a part of it.
        config: inputs, outputs, dummy inputs and patches of this graph.
    """

    name: str
    model: PreTrainedModel
    config: OnnxConfig

    @property
    def inputs(self) -> Axes:
        """Inputs in the order of ``forward``, with their dynamic axes."""
        return self.config.ordered_inputs(self.model)

    @property
    def outputs(self) -> Axes:
        """Outputs in order, with their dynamic axes."""
        return self.config.outputs

    @property
    def returns_cache(self) -> bool:
        """Whether the graph returns a KV cache."""
        return self.name != ENCODER and bool(getattr(self.config, "use_past", False))

    @property
    def takes_cache(self) -> bool:
        """Whether the graph has a KV cache among its inputs."""
        return bool(getattr(self.config, "use_past_in_inputs", False))

    @property
    def is_decoder_of_pair(self) -> bool:
        """Whether the graph is the decoder of an encoder-decoder: it reads an encoder's output."""
        return self.name in (DECODER, DECODER_WITH_PAST)

    @property
    def is_causal(self) -> bool:
        """Whether the graph predicts the next token of a text by itself."""
        return self.name == "model" and self.config.task == "text-generation"

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The module as Optimum traces it.

        Numbers that ``forward`` takes as an option (``logits_to_keep=0``) are fixed at their default: torch 2.13 would
        make graph inputs of them.
        """
        parameters = inspect.signature(self.model.forward).parameters
        numbers = {name: item.default for name, item in parameters.items() if type(item.default) in (int, float)}
        with self.config.patch_model_for_export(self.model, model_kwargs=numbers):
            yield


def plan(
    model: PreTrainedModel, task: str, preprocessors: Sequence[Any] = (), variant: str | None = None
) -> list[GraphPlan]:
    """The graphs that Optimum would export ``model`` as.

    Also brings the model into the state that the export of ``task`` needs (``use_cache``, ``return_dict``).

    Args:
        model: in eval mode.
        task: Optimum's name of it.
        preprocessors: tokenizer and processors, which some configs read sizes from.
        variant: one of the layouts that Optimum has for the architecture; None: the one that its classes can load.

    Raises:
        UnsupportedArchitectureError: Optimum has no such export, or needs a newer library for it.
    """
    TasksManager.standardize_model_attributes(model)
    model.config.return_dict = True
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = task.endswith("-with-past")
    try:
        _, pairs = _get_submodels_and_onnx_configs(
            model=model,
            task=task,
            monolith=False,
            custom_onnx_configs={},
            custom_architecture=False,
            _variant=variant or _VARIANTS.get(model.config.model_type, "default"),
            library_name="transformers",
            float_dtype=_FLOAT_NAMES[model.dtype],
            preprocessors=list(preprocessors),
        )
    except (KeyError, ValueError, NotImplementedError) as error:
        raise UnsupportedArchitectureError(
            f"Optimum cannot plan the export of a {model.config.model_type} model for {task!r}: {error}"
        ) from error
    plans = [GraphPlan(name, submodel, config) for name, (submodel, config) in pairs.items()]
    adapt = ADAPTERS.get(model.config.model_type)
    if adapt is not None:
        for graph in plans:
            adapt(graph.model, graph.config)
    for graph in plans:
        for key, value in (graph.config.values_override or {}).items():
            setattr(graph.model.config, key, value)
    return plans


def opset_of(plans: Sequence[GraphPlan], requested: int | None) -> int:
    """The opset to export with: the operator's, or what Optimum recommends for the architecture."""
    return requested or max(graph.config.DEFAULT_ONNX_OPSET for graph in plans)
