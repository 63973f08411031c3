"""ImageGPT without a cache.

transformers 4.57: ``ImageGPTModel.forward`` adds a cache length of None to the positions when it is called without a
cache and without positions, which is how a graph without cache is traced: ``unsupported operand type(s) for +:
'Tensor' and 'NoneType'``. The positions of a sequence without past are 0, 1, 2, ...
"""

import functools
from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from transformers import PreTrainedModel


def adapt(model: PreTrainedModel, _: OnnxConfig) -> None:
    """Give the model its positions where a caller gives none."""
    core = model.base_model
    forward = core.forward

    @functools.wraps(forward)
    def with_positions(input_ids: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if input_ids is not None and kwargs.get("position_ids") is None and kwargs.get("past_key_values") is None:
            length = input_ids.shape[-1]
            kwargs["position_ids"] = torch.arange(length, dtype=torch.long, device=input_ids.device).unsqueeze(0)
        return forward(input_ids, **kwargs)

    core.forward = with_positions
