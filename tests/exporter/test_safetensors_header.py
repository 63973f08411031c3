"""A safetensors header is read strictly: every rule of the format has a file that breaks it."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelexport.checkpoint.safetensors_header import MAX_HEADER_BYTES, HeaderEntry, read_header
from modelexport.contract.errors import CheckpointUnreadableError


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype: str = "F32", shape: list[int] | None = None, offsets: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": offsets or [0, 8]}


def test_tensors_come_in_the_order_of_their_data(tmp_path: Path) -> None:
    header = {"b": entry(offsets=[8, 16]), "a": entry(), "__metadata__": {"format": "pt"}}
    file = write(tmp_path / "m", header, bytes(16))
    start = 8 + len(json.dumps(header))
    assert list(read_header(file, "m").tensors.items()) == [
        ("a", HeaderEntry("F32", (2,), start, 8)),
        ("b", HeaderEntry("F32", (2,), start + 8, 8)),
    ]


def test_scalars_empty_tensors_and_padding_are_allowed(tmp_path: Path) -> None:
    header = {"scalar": entry(shape=[], offsets=[0, 4]), "empty": entry(shape=[0, 3], offsets=[4, 4])}
    raw = json.dumps(header).encode() + b"   "
    assert set(read_header(write(tmp_path / "m", raw, bytes(4)), "m").tensors) == {"scalar", "empty"}


@pytest.mark.parametrize(
    ("header", "data", "why"),
    [
        (b"[]", b"", "begin with"),
        (b"{", b"", "not valid JSON"),
        (b'{"a": 1, "a": 2}', b"", "twice"),
        (b'{"__metadata__": {"a": 1}}', b"", "__metadata__"),
        (b'{"__metadata__": []}', b"", "__metadata__"),
        (b"\xff{", b"", "begin with"),
        (b"{\xff}", b"", "not valid JSON"),
        (b'{"a":' * 5000, b"", "not valid JSON"),
        ({"a": 3}, b"", "exactly dtype"),
        ({"a": entry() | {"more": 1}}, bytes(8), "exactly dtype"),
        ({"a": entry("F33")}, bytes(8), "unknown dtype"),
        ({"a": entry(7)}, bytes(8), "unknown dtype"),  # type: ignore[arg-type]
        ({"a": entry(shape=[-2])}, bytes(8), "natural numbers"),
        ({"a": entry(shape=[2.0])}, bytes(8), "natural numbers"),  # type: ignore[list-item]
        ({"a": entry(shape=[True, 2])}, bytes(8), "natural numbers"),
        ({"a": entry(shape=[1] * 65)}, bytes(4), "natural numbers"),
        ({"a": entry(offsets=[0, 8, 8])}, bytes(8), "natural numbers"),
        ({"a": entry(offsets=[-8, 8])}, bytes(8), "natural numbers"),
        ({"a": entry(offsets=[0, 4])}, bytes(8), "needs 8 bytes"),
        ({"a": entry(offsets=[8, 0])}, bytes(8), "needs 8 bytes"),
        ({"a": entry(shape=[1 << 40, 1 << 40])}, bytes(8), "needs"),
        ({"a": entry("F4", [3], [0, 1])}, b"0", "needs"),
        ({"a": entry(), "b": entry()}, bytes(16), "overlaps"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(16), "overlaps"),
        ({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20), "hole"),
        ({"a": entry(offsets=[4, 12])}, bytes(12), "hole"),
        ({"a": entry()}, bytes(7), "truncated"),
        ({"a": entry()}, bytes(9), "belong to no tensor"),
        ({"a": entry(offsets=[1 << 62, (1 << 62) + 8])}, bytes(8), "hole"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(tmp_path: Path, header: Any, data: bytes, why: str) -> None:
    with pytest.raises(CheckpointUnreadableError, match=why):
        read_header(write(tmp_path / "model.safetensors", header, data), "model.safetensors")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "at least 8"),
        (b"1234567", "at least 8"),
        ((100).to_bytes(8, "little") + b"{}", "truncated"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "allows"),
        (b"\xff" * 8 + b"{}", "allows"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_a_file_that_is_cut_or_none_at_all_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointUnreadableError, match=why):
        read_header(tmp_path / "m", "m")
