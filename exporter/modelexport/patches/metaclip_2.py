"""MetaCLIP 2: return the outputs of the export config and no others.

optimum-onnx 0.1.0: ``MetaCLIP2Patcher`` returns the model's whole output, with those of its two encoders nested in
it, which become graph outputs without a name (``onnx::MatMul_294``) that shift the others; the export ends well and
cannot be run.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import MetaCLIP2Patcher
from transformers import PreTrainedModel


class _NamedOutputsOnly(MetaCLIP2Patcher):
    def __init__(
        self, config: OnnxConfig, model: PreTrainedModel, model_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(config, model, model_kwargs)
        patched: Callable[..., dict[str, Any]] = vars(self)["patched_forward"]  # an attribute without a type

        @functools.wraps(patched)
        def forward(*args: Any, **kwargs: Any) -> dict[str, Any]:
            outputs = patched(*args, **kwargs)
            return {name: outputs[name] for name in config.outputs}

        self.patched_forward = forward


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Trace with the patcher of this module."""
    config._MODEL_PATCHER = _NamedOutputsOnly
