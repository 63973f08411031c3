"""ViT-MAE: the noise that chooses the patches is an input.

transformers 4.57: ``ViTMAEModel`` embeds a random part of the image, anew in every call, unless it is given the noise
that it sorts the patches by. Optimum traces it without, so the graph draws random numbers and no two runs agree, with
PyTorch or with each other. With ``noise`` among its inputs, as in ``ViTMAEModel.forward``, the graph is a function of
its inputs.
"""

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import VitMAEOnnxConfig
from optimum.utils import DummyInputGenerator, DummyVisionInputGenerator
from transformers import PreTrainedModel


class _DummyNoiseGenerator(DummyInputGenerator):
    """``noise``: float ``[batch, patches]``, uniform in [0, 1)."""

    SUPPORTED_INPUT_NAMES = ("noise",)

    def __init__(self, _: str, normalized_config: Any, batch_size: int = 2, **__: Any) -> None:
        side = normalized_config.image_size // normalized_config.patch_size
        self._shape = (batch_size, side * side)

    def generate(self, *_: Any, **__: Any) -> torch.Tensor:
        return torch.rand(self._shape)


class _WithNoise(VitMAEOnnxConfig):
    DUMMY_INPUT_GENERATOR_CLASSES = (DummyVisionInputGenerator, _DummyNoiseGenerator)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {**super().inputs, "noise": {0: "batch_size"}}


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Export with ``noise`` as an input."""
    config.__class__ = _WithNoise
