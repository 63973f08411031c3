"""Mixtures of experts that transformers 5 stores fused: the experts of a layer as one tensor.

5.x computes all experts of a layer at once and fuses their weights on loading (``conversion_mapping.py``); on saving it
splits them again, unless ``save_original_format=False``. With E experts of width I in a model of width H it stores

* ``experts.gate_up_proj`` [E, 2 I, H]: of each expert, the rows of the gate, then those of the up projection;
* ``experts.down_proj`` [E, H, I].

4.57 has a module for each expert. Every one of its weights is a contiguous piece of those tensors, so nothing is
copied: the pieces are views of the memory-mapped file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import safe_open

from modelexport.checkpoint import Checkpoint, TensorInfo

_FUSED = re.compile(r"(.+\.)mlp\.experts\.(gate_up_proj|down_proj)")


@dataclass(frozen=True)
class _Layout:
    """What 4.57 calls the block and the three weights of an expert."""

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


LAYOUTS: Mapping[str, _Layout] = {
    "deepseek_v3": _Layout(),
    "mixtral": _Layout("block_sparse_moe", "w1", "w3", "w2"),
    "olmoe": _Layout(),
    "qwen2_moe": _Layout(),
    "qwen3_moe": _Layout(),
}
"""The model types whose experts 5.x fuses in this way and 4.57 keeps apart."""


@dataclass(frozen=True)
class Piece:
    """The rows ``begin`` to ``end`` of one expert in a stored tensor."""

    stored: str
    expert: int
    begin: int
    end: int


@dataclass(frozen=True)
class Split:
    """A checkpoint's tensors as 4.57 names them.

    Attributes:
        tensors: where each one lies; those that were not fused as they were.
        pieces: by name, where those lie that were.
    """

    tensors: Mapping[str, TensorInfo]
    pieces: Mapping[str, Piece]

    def load(self, root: Path) -> dict[str, torch.Tensor]:
        """All tensors, as views of the memory-mapped files in ``root``."""
        loaded: dict[str, torch.Tensor] = {}
        for file in sorted({info.file for info in self.tensors.values()}):
            names = [name for name, info in self.tensors.items() if info.file == file]
            stored: dict[str, torch.Tensor] = {}
            with safe_open(root / file, framework="pt", device="cpu") as weights:
                for name in names:
                    piece = self.pieces.get(name)
                    key = piece.stored if piece else name
                    if key not in stored:
                        stored[key] = weights.get_tensor(key)
                    whole = stored[key]
                    loaded[name] = whole[piece.expert, piece.begin : piece.end] if piece else whole
        return loaded


def split(checkpoint: Checkpoint) -> Split | None:
    """The tensors of ``checkpoint`` with the experts apart; None where none are fused, or not in this layout."""
    layout = LAYOUTS.get(checkpoint.model_type)
    fused = {name: match for name in checkpoint.tensors if (match := _FUSED.fullmatch(name))}
    if layout is None or not fused or not all(_fits(match, checkpoint.tensors[name]) for name, match in fused.items()):
        return None
    tensors = {name: info for name, info in checkpoint.tensors.items() if name not in fused}
    pieces: dict[str, Piece] = {}
    for name, match in fused.items():
        for own, piece, info in _pieces(name, match, checkpoint.tensors[name], layout):
            tensors[own], pieces[own] = info, piece
    return Split(MappingProxyType(tensors), MappingProxyType(pieces))


def _fits(match: re.Match[str], info: TensorInfo) -> bool:
    return len(info.shape) == 3 and (match[2] == "down_proj" or info.shape[1] % 2 == 0)


def _pieces(
    name: str, match: re.Match[str], info: TensorInfo, layout: _Layout
) -> Iterator[tuple[str, Piece, TensorInfo]]:
    experts, rows, columns = info.shape
    parts = (layout.down,) if match[2] == "down_proj" else (layout.gate, layout.up)
    height = rows // len(parts)
    row_bytes = info.nbytes // max(experts * rows, 1)
    for expert in range(experts):
        for number, part in enumerate(parts):
            begin = number * height
            piece = replace(
                info,
                shape=(height, columns),
                offset=info.offset + (expert * rows + begin) * row_bytes,
                nbytes=height * row_bytes,
            )
            own = f"{match[1]}{layout.block}.experts.{expert}.{part}.weight"
            yield own, Piece(name, expert, begin, begin + height), piece
