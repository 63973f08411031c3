"""MaskFormer for images of any size.

transformers 4.57: the Swin backbone of MaskFormer (``modeling_maskformer_swin.py``) asks in Python whether an image is
a multiple of the patch, of the window, and of two, pads it where it is not, and cuts the padding off again. A trace
takes the answers for the traced image as everybody's. Its processor makes images of any multiple of 32, and the graph
fails on the first of another kind: ``The input tensor cannot be reshaped to the requested shape``. Here everything is
padded and cut, by nothing where there is nothing to pad.
"""

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.maskformer.modeling_maskformer_swin import (
    MaskFormerSwinLayer,
    MaskFormerSwinPatchEmbeddings,
    MaskFormerSwinPatchMerging,
)

_CUT = (0, 0, 0, 1, 0, 1)  # as the padding of a layer: makes it cut what it returns to the size that it was given


def _to_patches(
    self: MaskFormerSwinPatchEmbeddings, pixel_values: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """``[batch, channels, height, width]``, padded at the end to multiples of the patch."""
    rows, columns = self.patch_size
    return functional.pad(pixel_values, (0, -width % columns, 0, -height % rows))


def _to_even(_: MaskFormerSwinPatchMerging, input_feature: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """``[batch, height, width, channels]``, padded at the end to even sizes."""
    return functional.pad(input_feature, (0, 0, 0, width % 2, 0, height % 2))


def _to_windows(
    self: MaskFormerSwinLayer, hidden_states: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """``[batch, height, width, channels]``, padded at the end to multiples of the window; and :data:`_CUT`."""
    window = self.window_size
    return functional.pad(hidden_states, (0, 0, 0, -width % window, 0, -height % window)), _CUT


_REPLACEMENTS = {
    MaskFormerSwinPatchEmbeddings: _to_patches,
    MaskFormerSwinPatchMerging: _to_even,
    MaskFormerSwinLayer: _to_windows,
}


class _Patcher(ModelPatcher):
    def __enter__(self) -> None:
        super().__enter__()
        self._originals = {owner: owner.maybe_pad for owner in _REPLACEMENTS}
        for owner, replacement in _REPLACEMENTS.items():
            owner.maybe_pad = replacement

    def __exit__(self, *error: Any) -> None:
        for owner, original in self._originals.items():
            owner.maybe_pad = original
        super().__exit__(*error)


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Trace with the methods of this module."""
    config._MODEL_PATCHER = _Patcher
