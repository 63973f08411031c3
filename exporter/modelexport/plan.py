"""Which graphs a model is exported as, with which inputs, outputs and dynamic axes: Optimum's own answer.

A plan is one ONNX file to be: the module to trace and the OnnxConfig that knows its inputs. Encoders have one,
encoder-decoders several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.utils import _get_submodels_and_onnx_configs
from optimum.exporters.tasks import TasksManager
from transformers import PreTrainedModel

from modelexport.contract.errors import UnsupportedArchitectureError

Axes = Mapping[str, Mapping[int, str]]
"""Per input or output of a graph: axis number -> axis name."""

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
        return self.config.ordered_inputs(self.model)  # type: ignore[no-any-return]

    @property
    def outputs(self) -> Axes:
        """Outputs in order, with their dynamic axes."""
        return self.config.outputs  # type: ignore[no-any-return]


def plan(model: PreTrainedModel, task: str, preprocessors: Sequence[Any] = ()) -> list[GraphPlan]:
    """The graphs that Optimum would export ``model`` as.

    Also brings the model into the state that the export of ``task`` needs (``use_cache``, ``return_dict``).

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
            _variant="default",
            library_name="transformers",
            float_dtype=_FLOAT_NAMES[model.dtype],
            preprocessors=list(preprocessors),
        )
    except (KeyError, ValueError, NotImplementedError) as error:
        raise UnsupportedArchitectureError(
            f"Optimum cannot plan the export of a {model.config.model_type} model for {task!r}: {error}"
        ) from error
    plans = [GraphPlan(name, submodel, config) for name, (submodel, config) in pairs.items()]
    for graph in plans:
        for key, value in (graph.config.values_override or {}).items():
            setattr(graph.model.config, key, value)
    return plans


def opset_of(plans: Sequence[GraphPlan], requested: int | None) -> int:
    """The opset to export with: the operator's, or what Optimum recommends for the architecture."""
    return requested or max(graph.config.DEFAULT_ONNX_OPSET for graph in plans)
