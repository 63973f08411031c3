"""Stream an ONNX model and its weights to disk: one tensor in flight, hashed while it is written.

Below 2 GB everything goes into one file. Protobuf is length-prefixed, so the graph's size is added up first and the
initialisers are then written as they come, in the encoding of ``onnx.proto``: ``ModelProto.graph`` is field 7,
``GraphProto.initializer`` field 5, ``TensorProto.raw_data`` field 9. Field order within a message is free
(https://protobuf.dev/programming-guides/encoding/#order).

Above, the tensors go to exactly one sidecar, ``<file>_data``: the only other file that Optimum fetches.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes; protobuf parsers refuse longer messages."""

_INLINE = 1024  # bytes; smaller tensors stay in the graph even when the rest goes to the sidecar
_ALIGNMENT = 4096  # bytes; ONNX Runtime maps external tensors that start at a page
_CHUNK = 8 << 20  # bytes


@dataclass(frozen=True)
class Written:
    """A file as written."""

    path: Path
    size: int
    sha256: str


Progress = Callable[[int], None]
"""Called with the number of bytes written since the last call."""


def write(
    model: ir.Model, path: Path, progress: Progress = lambda _: None, limit: int = PROTOBUF_LIMIT
) -> list[Written]:
    """Write ``model`` to ``path``, and to ``<path>_data`` where it would reach ``limit`` bytes.

    Args:
        model: initialisers may be of any size; each is materialised once, alone.
        limit: bytes; only tests lower it.

    Raises:
        OSError: the disk is full, say. What was written stays: the caller owns the folder.
    """
    tensors = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _INLINE
    }
    skeleton = _skeleton(model, set(tensors))
    total = skeleton.ByteSize() + sum(tensor.nbytes + 256 + len(name) for name, tensor in tensors.items())
    if total < limit:
        return [_write_embedded(skeleton, tensors, path, progress)]
    return _write_external(skeleton, tensors, path, progress)


def nbytes(model: ir.Model) -> int:
    """Bytes of all initialisers: what :func:`write` reports as progress in the end."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def _skeleton(model: ir.Model, without: set[str]) -> onnx.ModelProto:
    """The model's proto with the initialisers named in ``without`` left out."""
    values = tuple(model.graph.initializers.values())
    for name in without:
        del model.graph.initializers[name]
    try:
        return ir.to_proto(model)
    finally:
        model.graph.initializers.clear()
        for value in values:
            model.graph.register_initializer(value)


def _write_embedded(
    skeleton: onnx.ModelProto, tensors: dict[str, ir.TensorProtocol], path: Path, progress: Progress
) -> Written:
    headers = {name: _tensor_header(name, tensor) for name, tensor in tensors.items()}
    graph = skeleton.graph.SerializeToString(deterministic=True)
    length = len(graph)
    for name, header in headers.items():
        body = len(header) + tensors[name].nbytes
        length += len(_field(5, body)) + body
    frame = onnx.ModelProto()
    frame.CopyFrom(skeleton)
    frame.ClearField("graph")
    with _HashedFile(path) as file:
        file.write(frame.SerializeToString(deterministic=True))
        file.write(_field(7, length))
        file.write(graph)
        for name, header in headers.items():
            file.write(_field(5, len(header) + tensors[name].nbytes))
            file.write(header)
            _stream(tensors[name], file, progress)
        return file.written()


def _write_external(
    skeleton: onnx.ModelProto, tensors: dict[str, ir.TensorProtocol], path: Path, progress: Progress
) -> list[Written]:
    sidecar = path.with_name(path.name + "_data")
    with _HashedFile(sidecar) as file:
        for name, tensor in tensors.items():
            file.write(bytes(-file.size % _ALIGNMENT))
            skeleton.graph.initializer.append(_external(name, tensor, sidecar.name, file.size))
            _stream(tensor, file, progress)
        data = file.written()
    with _HashedFile(path) as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        return [file.written(), data]


def _external(name: str, tensor: ir.TensorProtocol, location: str, offset: int) -> onnx.TensorProto:
    proto = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype.value)
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _tensor_header(name: str, tensor: ir.TensorProtocol) -> bytes:
    """A ``TensorProto`` up to and including the length of its ``raw_data``."""
    proto = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype.value)
    return proto.SerializeToString(deterministic=True) + _field(9, tensor.nbytes)


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited protobuf field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _stream(tensor: ir.TensorProtocol, file: "_HashedFile", progress: Progress) -> None:
    """Write the little-endian, row-major bytes of one tensor."""
    size = 0
    for chunk in _chunks(tensor):
        file.write(chunk)
        size += len(chunk)
        progress(len(chunk))
    if size != tensor.nbytes:  # would shift everything behind it
        raise ValueError(f"initialiser {tensor.name} has {size} bytes, expected {tensor.nbytes}")


def _chunks(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    if isinstance(tensor, TorchTensor):
        contiguous = tensor.raw.detach().contiguous()  # the one copy, of a transposed tensor, say
        array = contiguous.flatten().view(torch.uint8).numpy() if contiguous.numel() else np.empty(0, np.uint8)
        data = memoryview(array)
    else:
        data = memoryview(tensor.tobytes())
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


class _HashedFile:
    """A file that knows its size and sha256 when it is done, without being read again.

    Hashing runs in a thread, beside the writing: both leave Python's lock alone. The queue is short, so that no more
    than two chunks wait in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._pending: queue.Queue[bytes | memoryview | None] = queue.Queue(maxsize=2)
        self._hasher = threading.Thread(target=self._hash, daemon=True)
        self.size = 0

    def __enter__(self) -> "_HashedFile":
        self._file: BinaryIO = self._path.open("wb", buffering=0)
        self._hasher.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._finish()
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``, which must not change afterwards."""
        self._pending.put(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)

    def written(self) -> Written:
        """What is in the file; nothing can be written after this."""
        self._finish()
        return Written(self._path, self.size, self._digest.hexdigest())

    def _finish(self) -> None:
        if self._hasher.is_alive():
            self._pending.put(None)
            self._hasher.join()

    def _hash(self) -> None:
        while (data := self._pending.get()) is not None:
            self._digest.update(data)
