"""Decision Transformer: its last hidden state is three times as long as its inputs.

optimum-onnx 0.1.0 names the axis ``sequence_length``, like that of the inputs. ONNX Runtime believes it, takes one
length for the other in a ``Reshape``, and fails: ``The input tensor cannot be reshaped to the requested shape``.
"""

from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import DecisionTransformerOnnxConfig
from transformers import PreTrainedModel


class _Config(DecisionTransformerOnnxConfig):
    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {**super().outputs, "last_hidden_state": {0: "batch_size", 1: "3 * sequence_length"}}


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Name the axis for what it is."""
    config.__class__ = _Config
