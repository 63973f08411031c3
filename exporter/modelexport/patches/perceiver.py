"""Perceiver for images: trace what takes pixels and nothing else.

transformers 4.57: ``forward`` of the three image classifiers has ``interpolate_pos_encoding=False`` before
``pixel_values``. torch 2.13 makes a graph input of the switch, and as it comes first, it gets the name and the axes of
the image: ``Dynamic shape axis should be no more than the shape dimension for height``. optimum-onnx 0.1.0 also names
the axes of the image wrongly (channels are its ``sequence_length``), and lets height and width vary, which the
position embeddings do not.
"""

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import PerceiverOnnxConfig
from transformers import PreTrainedModel


class _OfImages(PerceiverOnnxConfig):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"pixel_values": {0: "batch_size"}}


def adapt(model: PreTrainedModel, config: OnnxConfig) -> None:
    """Give an image classifier a ``forward`` of pixels; the text models stay as they are."""
    if config.task != "image-classification":
        return
    config.__class__ = _OfImages
    forward = model.forward

    def of_pixels(pixel_values: torch.Tensor, return_dict: bool | None = None) -> Any:
        """Logits of ``[batch, channels, height, width]``."""
        return forward(pixel_values=pixel_values, return_dict=return_dict)

    model.forward = of_pixels
