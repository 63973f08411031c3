"""The header of a safetensors file, read strictly.

The format (https://github.com/huggingface/safetensors#format): 8 bytes, the header's length N as an unsigned
little-endian integer; N bytes of UTF-8 JSON that begin with ``{`` and may be padded with spaces; then the data. The
JSON maps each tensor to ``dtype``, ``shape`` and ``data_offsets`` (relative to the data), and ``__metadata__`` to
strings.

The rules, which are those of the reference implementation:

1. N is at most 100 MB and the file holds it.
2. No key occurs twice.
3. Every dtype is known and every shape is a list of non-negative integers.
4. The byte range of a tensor is as long as its dtype and shape say.
5. The ranges follow one another from 0 without hole or overlap, and the last ends where the file ends.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelexport.contract.errors import CheckpointUnreadableError

MAX_HEADER_BYTES = 100_000_000

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits per element of every dtype of safetensors 0.8."""

_MAX_RANK = 64
"""torch's own limit (c10 ``kMaxDims``); the format has none."""

_TORCH_FLOATS: Mapping[str, str] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class HeaderEntry:
    """One tensor: dtype, shape, absolute offset in the file, length in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The tensors in the order of their data, and ``__metadata__``."""

    tensors: Mapping[str, HeaderEntry]
    metadata: Mapping[str, str]


def torch_float_name(dtype: str) -> str | None:
    """The torch name of a safetensors dtype in which a model can compute, None for every other."""
    return _TORCH_FLOATS.get(dtype)


def read_header(path: Path, name: str) -> Header:
    """Read and check the header of one safetensors file.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        CheckpointUnreadableError: the file breaks one of the rules above.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if prefix.startswith(b"version "):
            raise CheckpointUnreadableError(
                f"{name} is a Git LFS pointer, not the weights: the repo was cloned without git-lfs. "
                "Run `git lfs pull` in the folder, or download the repo again."
            )
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8:
            raise _broken(name, f"it has {size} bytes and the format needs at least 8")
        if length > MAX_HEADER_BYTES:
            raise _broken(name, f"it declares a header of {length} bytes; the format allows {MAX_HEADER_BYTES}")
        if 8 + length > size:
            raise _broken(name, f"it declares a header of {length} bytes and has {size} bytes in all; it is truncated")
        raw = stream.read(length)
    content = _parse(raw, name)
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(name, "its __metadata__ is not a map of strings")
    return Header(_entries(content, name, data_start=8 + length, data_size=size - 8 - length), metadata)


def _parse(raw: bytes, name: str) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _broken(name, "its header does not begin with '{'")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _broken(name, f"its header has the key {key!r} twice")
            found[key] = value
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(name, f"its header is not valid JSON ({str(error)[:120]})") from error
    assert isinstance(header, dict)  # it begins with '{'
    return header


def _entries(header: dict[str, Any], name: str, *, data_start: int, data_size: int) -> dict[str, HeaderEntry]:
    entries = {key: _entry(key, value, name, data_start) for key, value in header.items()}
    end = data_start
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)))
    for key, entry in ordered.items():
        if entry.offset != end:
            kind = "overlaps the one before it" if entry.offset < end else "leaves a hole before it"
            raise _broken(name, f"the data of {key!r} {kind}")
        end += entry.nbytes
    if end != data_start + data_size:
        problem = "it is truncated" if end > data_start + data_size else "bytes follow that belong to no tensor"
        raise _broken(name, f"its tensors need {end - data_start} bytes and it holds {data_size}: {problem}")
    return ordered


def _entry(key: str, value: Any, name: str, data_start: int) -> HeaderEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _broken(name, f"the entry of {key!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise _broken(name, f"{key!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _naturals(shape) or len(shape) > _MAX_RANK or not _naturals(offsets) or len(offsets) != 2:
        raise _broken(name, f"the shape or the offsets of {key!r} are not natural numbers")
    begin, end = offsets
    needed = math.prod(shape) * bits
    if needed % 8 or end - begin != needed // 8:
        raise _broken(name, f"{key!r} ({dtype}, {shape}) needs {needed // 8} bytes and has the range {begin}-{end}")
    return HeaderEntry(dtype, tuple(shape), data_start + begin, end - begin)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _broken(name: str, why: str) -> CheckpointUnreadableError:
    return CheckpointUnreadableError(
        f"{name} is not a valid safetensors file: {why}. Download it again, or save the model again."
    )
