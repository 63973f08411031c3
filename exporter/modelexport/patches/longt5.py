"""LongT5 with transient global attention, for any length.

transformers 4.57: ``_create_global_aggregates`` sums the tokens of every block by ``one_hot`` with as many classes as
there are blocks, and ``_make_global_fixed_block_ids`` repeats a row once for every block. A trace freezes the first at
the number of blocks that the traced input had. The second fails in ONNX Runtime on texts shorter than a block, which
have none: ``The dimension with value zero exceeds the dimension size``. Comparisons with the block numbers do the
same for any length.
"""

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_patcher import ModelPatcher
from transformers import PreTrainedModel
from transformers.models.longt5 import modeling_longt5

_block_ids_and_segments = modeling_longt5._make_global_fixed_block_ids
_split = modeling_longt5._split_into_blocks


def _make_global_fixed_block_ids(
    attention_mask: torch.Tensor, global_block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Block of each token, ``[batch, length]``, -1 for padding; and 1 for each block in use, ``[batch, blocks]``."""
    block_ids, _ = _block_ids_and_segments(attention_mask, global_block_size)
    blocks = torch.arange(attention_mask.shape[1] // global_block_size, dtype=block_ids.dtype)
    last = block_ids.max(dim=-1, keepdim=True).values
    return block_ids, (blocks[None, :] <= last).to(block_ids.dtype)


def _create_global_aggregates(
    hidden_states: torch.Tensor, block_ids: torch.Tensor, global_seq_len: int
) -> torch.Tensor:
    """Sum of the tokens of each block: ``[batch, blocks, hidden]``.

    Args:
        hidden_states: ``[batch, length, hidden]``.
        block_ids: block of each token, below zero for padding: int ``[batch, length]``.
        global_seq_len: number of blocks.
    """
    member = block_ids[..., None] == torch.arange(global_seq_len, dtype=block_ids.dtype)
    return torch.matmul(member.to(hidden_states.dtype).transpose(-1, -2), hidden_states)


def _split_into_blocks(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """The original; the bias of the blocks, ``[batch, heads, length, blocks]``, has one block more meanwhile.

    There may be none, and ONNX Runtime reshapes no tensor without elements.
    """
    if dim != -2:
        return _split(x, block_len, dim)
    return _split(torch.nn.functional.pad(x, (0, 1)), block_len, dim)[..., :-1]


_REPLACEMENTS = (_make_global_fixed_block_ids, _create_global_aggregates, _split_into_blocks)


class _Patcher(ModelPatcher):
    def __enter__(self) -> None:
        super().__enter__()
        self._originals = {function.__name__: getattr(modeling_longt5, function.__name__) for function in _REPLACEMENTS}
        for function in _REPLACEMENTS:
            setattr(modeling_longt5, function.__name__, function)

    def __exit__(self, *error: Any) -> None:
        for name, original in self._originals.items():
            setattr(modeling_longt5, name, original)
        super().__exit__(*error)


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Trace with the functions of this module."""
    config._MODEL_PATCHER = _Patcher
