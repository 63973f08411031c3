"""The checkpoint as the rest of the exporter sees it: plain frozen values, no open files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from modelexport.checkpoint.custom_code import CustomCode

Format = Literal["safetensors", "bin"]
Library = Literal["transformers", "sentence_transformers"]


@dataclass(frozen=True)
class WeightFile:
    """One file of weights: path relative to the checkpoint's root, size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in a safetensors file.

    Attributes:
        dtype: the safetensors name (``F32``, ``BF16``, …).
        shape: the dimensions, ``()`` for a scalar.
        file: path of the weight file, relative to the checkpoint's root.
        offset: absolute position of the first byte in that file.
        nbytes: length in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was read and found sound.

    Attributes:
        root: the folder.
        config: ``config.json`` as parsed; never changed by anyone.
        model_type: ``config["model_type"]``, or what the architecture implies where the file does not say.
        architectures: ``config["architectures"]``, possibly empty.
        weights: the files that transformers would load, in order.
        tensors: every tensor by name; empty for ``bin``, whose contents only an unpickler knows.
        format: safetensors is preferred where a folder holds both.
        saved_by: ``transformers_version`` of the config, None where it does not say.
        library: ``sentence_transformers`` where the folder has that library's module list, else ``transformers``.
        dtype: the floating dtype that most bytes of the weights have, by torch's name (``float32``). For ``bin`` what
            the config declares, ``float32`` where it does not.
        nbytes: of all tensors; for ``bin`` of the files.
        tokenizer_files: files that tokenizers are made of, sorted.
        processor_files: files that image processors, feature extractors and processors are made of, sorted.
        generation_config: whether ``generation_config.json`` is there.
        notes: deviations worth telling, one sentence each.
        custom_code: the code in the folder that defines the model; None where there is none or the operator does not
            allow it.
    """

    root: Path
    config: Mapping[str, Any]
    model_type: str
    architectures: tuple[str, ...]
    weights: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorInfo]
    format: Format
    saved_by: str | None
    library: Library
    dtype: str
    nbytes: int
    tokenizer_files: tuple[str, ...]
    processor_files: tuple[str, ...]
    generation_config: bool
    notes: tuple[str, ...] = ()
    custom_code: CustomCode | None = None

    @property
    def custom_classes(self) -> tuple[str, ...]:
        """The Auto classes that code of the folder defines the model for; usually none."""
        return self.custom_code.auto_classes(self.architectures) if self.custom_code else ()

    @property
    def saved_by_major(self) -> int | None:
        """The major version of the transformers release that saved the checkpoint, None where unknown."""
        head = (self.saved_by or "").split(".", 1)[0]
        return int(head) if head.isdecimal() else None

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        return MappingProxyType({weight.path: _sha256(self.root / weight.path) for weight in self.weights})

    def weight_digests(self) -> Mapping[str, str]:
        """sha256 of each weight file by path; reads every byte, once per checkpoint."""
        return self._digests


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
