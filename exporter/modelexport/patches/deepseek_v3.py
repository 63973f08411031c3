"""DeepSeek-V3 with every expert in the graph.

transformers 4.57: ``DeepseekV3MoE.moe`` skips the experts that no token chose. A trace takes the choice of the traced
input for everybody's: the others are not in the graph, and what they would add is missing wherever they are chosen.
With more experts than the traced tokens choose (DeepSeek-V3 has 256) the graph runs and its numbers are wrong.
"""

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from transformers import PreTrainedModel
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE


def _moe(
    self: DeepseekV3MoE, hidden_states: torch.Tensor, topk_indices: torch.Tensor, topk_weights: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of what the chosen experts make of each token: ``[tokens, hidden]``.

    Args:
        hidden_states: ``[tokens, hidden]``.
        topk_indices: the experts of each token: int ``[tokens, chosen]``.
        topk_weights: their weights: ``[tokens, chosen]``.
    """
    total = torch.zeros_like(hidden_states, dtype=topk_weights.dtype)
    chosen = torch.nn.functional.one_hot(topk_indices, num_classes=len(self.experts)).permute(2, 0, 1)
    for number, expert in enumerate(self.experts):
        tokens, places = torch.where(chosen[number])  # there may be none
        output = expert(hidden_states[tokens]) * topk_weights[tokens, places].unsqueeze(-1)
        total.index_add_(0, tokens, output)
    return total.type(hidden_states.dtype)


class _Patcher(ModelPatcher):
    def __enter__(self) -> None:
        super().__enter__()
        self._moe = DeepseekV3MoE.moe
        DeepseekV3MoE.moe = _moe

    def __exit__(self, *error: Any) -> None:
        DeepseekV3MoE.moe = self._moe
        super().__exit__(*error)


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Trace with the function of this module."""
    config._MODEL_PATCHER = _Patcher
