"""Longformer's sliding window in operations that ONNX has, for any length.

transformers 4.57 cuts the sequence into overlapping chunks with ``as_strided`` or, for ONNX, in a Python loop over the
chunks; and it looks whether there are global tokens at all. Both freeze what the traced input was like: a graph
traced with 16 tokens runs with 16 tokens. Optimum's dummy input has no global token and, where the window divides 16,
no padding.

:func:`_attend` computes the same attention (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1):

1. Every block of ``w`` queries sees three blocks of keys, its own and its neighbours, under a band of ``w`` to each
side.
2. Every query sees the global tokens, gathered to the front of an axis as long as the batch's longest list of them;
   their keys are left out of the window.
3. Global tokens attend to everything, by projections of their own, and replace their row of the result.
"""

import math
from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import LongformerOnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

_UNEVEN = 17  # tokens; no window divides it, as windows are even, so the padding is traced


def _attend(
    self: LongformerSelfAttention,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    layer_head_mask: None = None,  # noqa: ARG001  the signature of the method that this replaces
    is_index_masked: torch.Tensor | None = None,
    is_index_global_attn: torch.Tensor | None = None,
    is_global_attn: bool = False,  # noqa: ARG001
    output_attentions: bool = False,  # noqa: ARG001
) -> tuple[torch.Tensor]:
    """Attention output ``[batch, length, hidden]``; the length is a multiple of the window.

    Args:
        hidden_states: ``[batch, length, hidden]``.
        attention_mask: ``[batch, length]``: below zero for padding, above for global tokens.
        is_index_masked: bool ``[batch, length]``, where it is below zero.
        is_index_global_attn: bool ``[batch, length]``, where it is above.
    """
    assert is_index_masked is not None and is_index_global_attn is not None
    batch, _, width = hidden_states.shape
    heads, size, window = self.num_heads, self.head_dim, self.one_sided_attn_window_size
    lowest = torch.finfo(hidden_states.dtype).min

    def split(states: torch.Tensor) -> torch.Tensor:  # [batch, heads, length, size]
        return states.view(batch, -1, heads, size).transpose(1, 2)

    def blocks(states: torch.Tensor) -> torch.Tensor:  # [batch, heads, blocks, window, last]
        return states.reshape(batch, -1, states.shape[2] // window, window, states.shape[3])

    def around(states: torch.Tensor) -> torch.Tensor:  # [batch, heads, blocks, 3 * window, last]
        cut = blocks(functional.pad(states, (0, 0, window, window)))
        return torch.cat([cut[:, :, :-2], cut[:, :, 1:-1], cut[:, :, 2:]], dim=3)

    query = split(self.query(hidden_states) / math.sqrt(size))
    key, value = split(self.key(hidden_states)), split(self.value(hidden_states))

    distance = torch.arange(3 * window)[None, :] - window - torch.arange(window)[:, None]
    visible = around((attention_mask == 0)[:, None, :, None].to(hidden_states.dtype)).transpose(-1, -2) > 0
    allowed = visible & (distance.abs() <= window)
    scores = torch.matmul(blocks(query), around(key).transpose(-1, -2)).masked_fill(~allowed, lowest)
    local_scores = scores.reshape(batch, heads, -1, 3 * window)

    count = is_index_global_attn.long().sum(dim=1)
    most = count.max()
    # Rows with fewer fill up with others. No two ranks are equal, so PyTorch and ONNX take the same ones.
    length = hidden_states.shape[1]
    rank = is_index_global_attn.long() * length - torch.arange(length)[None, :]
    chosen = torch.sort(rank, dim=1, descending=True).indices[:, :most]
    real = torch.arange(chosen.shape[1])[None, :] < count[:, None]  # [batch, global]
    where = chosen[:, None, :, None].expand(-1, heads, -1, size)
    global_scores = torch.matmul(query, key.gather(2, where).transpose(-1, -2))
    global_scores = global_scores.masked_fill(~real[:, None, None, :], lowest)

    weights = torch.softmax(torch.cat([global_scores, local_scores], dim=-1), dim=-1, dtype=torch.float32)
    weights = weights.masked_fill(is_index_masked[:, None, :, None], 0.0).to(hidden_states.dtype)
    to_window = torch.matmul(blocks(weights[..., most:]), around(value)).reshape(batch, heads, -1, size)
    output = to_window + torch.matmul(weights[..., :most], value.gather(2, where))
    output = output.transpose(1, 2).reshape(batch, -1, width)

    places = chosen[:, :, None].expand(-1, -1, width)
    global_query = split(self.query_global(hidden_states.gather(1, places)) / math.sqrt(size))
    scores = torch.matmul(global_query, split(self.key_global(hidden_states)).transpose(-1, -2))
    scores = scores.masked_fill(is_index_masked[:, None, None, :], lowest)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(hidden_states.dtype)
    attended = torch.matmul(weights, split(self.value_global(hidden_states))).transpose(1, 2).reshape(batch, -1, width)
    attended = torch.where(real[:, :, None], attended, output.gather(1, places))
    return (output.scatter(1, places, attended),)


class _Patcher(ModelPatcher):
    def __enter__(self) -> None:
        super().__enter__()
        self._attend = LongformerSelfAttention.forward
        LongformerSelfAttention.forward = _attend

    def __exit__(self, *error: Any) -> None:
        LongformerSelfAttention.forward = self._attend
        super().__exit__(*error)


class _Config(LongformerOnnxConfig):
    _MODEL_PATCHER = _Patcher

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        """Optimum's, of an uneven length, with global tokens: the first of each row, and one more in the last row."""
        if shapes.get("sequence_length", 16) == 16:
            shapes["sequence_length"] = _UNEVEN
        inputs: dict[str, Any] = super().generate_dummy_inputs(framework=framework, **shapes)
        inputs["global_attention_mask"][..., 0] = 1
        inputs["global_attention_mask"][-1, ..., 2:3] = 1
        return inputs


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Trace with the attention of this module."""
    config.__class__ = _Config
