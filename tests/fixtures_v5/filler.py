"""Weights from a seed: the same bytes in every environment, so that only their names and shapes are committed.

Each tensor is drawn from a generator of its own, seeded by the fixture's name and the tensor's. Norms are put around
one and biases around zero, both perturbed: a weight that ends up in the wrong place, or nowhere, changes the result.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def tensor(fixture: str, name: str, shape: Sequence[int], dtype: str = "F32") -> np.ndarray:
    """One tensor; float32, or int64 zeros for counters and index tables."""
    if dtype != "F32":
        return np.zeros(shape, dtype={"I64": np.int64, "BOOL": np.bool_}[dtype])
    digest = hashlib.sha256(f"{fixture}/{name}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    noise = generator.standard_normal(tuple(shape), dtype=np.float32)
    if name.endswith("running_var"):
        return np.abs(noise) + np.float32(0.5)
    if len(shape) <= 1:
        centre = 1.0 if "norm" in name.lower() and name.endswith(("weight", "gamma")) else 0.0
        return np.float32(centre) + np.float32(0.2) * noise
    fused = fixture.endswith("_fused") and ".experts." in name
    fan_in = shape[-1] if fused else math.prod(shape[1:])
    return noise / np.float32(math.sqrt(fan_in) if fan_in > 1 else 1.0)


def write_safetensors(path: Path, fixture: str, entries: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """A safetensors file with the named tensors, each drawn by :func:`tensor`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    arrays, offset = [], 0
    for name in sorted(entries):
        dtype, shape = entries[name]
        array = np.ascontiguousarray(tensor(fixture, name, shape, dtype))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
        arrays.append(array)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little"))
        stream.write(raw)
        for array in arrays:
            stream.write(array.tobytes())
