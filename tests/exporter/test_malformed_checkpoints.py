"""Malformed checkpoints end in an error of ours, whatever is wrong with them, and leave nothing behind."""

import copy
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from modelexport import bridge, checkpoint
from modelexport.contract.errors import ModelExportError
from modelexport.contract.manifest import Options
from modelexport.export import Origin, export
from modelexport.load import load_model
from tests.exporter.folders import CONFIG, write_model

pytestmark = pytest.mark.engine

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1 << 66),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just([[1]]),
)
Mutation = Callable[[Path], None]


def load(folder: Path) -> None:
    """What an export does before it traces."""
    with tempfile.TemporaryDirectory() as scratch:
        read = checkpoint.read(folder)
        load_model(bridge.prepare(read, Path(scratch) / "prepared"), read, "feature-extraction", torch.float32)


def with_header(change: Callable[[dict[str, Any]], Any]) -> Mutation:
    """Rewrite the header of the first weight file; the data stays."""

    def mutate(folder: Path) -> None:
        path = min(folder.glob("*.safetensors"))
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        raw = json.dumps(change(header) or header).encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])

    return mutate


def with_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Mutation:
    def mutate(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(content) or content))

    return mutate


def tensors(header: dict[str, Any]) -> list[str]:
    return sorted(name for name in header if name != "__metadata__")


@st.composite
def header_mutations(draw: st.DrawFn) -> Mutation:
    """Something that no longer is a header, or no longer that of the data."""
    pick = draw(st.integers(0, 100))
    kind = draw(
        st.sampled_from(["drop", "dtype", "shape", "begin", "end", "swap", "rename", "entry", "extra", "empty"])
    )
    value = draw(ODD)
    shift = draw(st.integers(-64, 64).filter(bool))

    def change(header: dict[str, Any]) -> Any:
        name = tensors(header)[pick % len(tensors(header))]
        entry = header[name]
        if kind == "drop":
            del header[name]
        elif kind == "dtype":
            entry["dtype"] = value if value != "F32" else "F64"
        elif kind == "shape":
            entry["shape"] = value if value != entry["shape"] else None
        elif kind in ("begin", "end"):
            entry["data_offsets"][kind == "end"] += shift
        elif kind == "swap":
            entry["data_offsets"].reverse()
        elif kind == "rename":
            header[f"{name}x"] = header.pop(name)
        elif kind == "entry":
            header[name] = value
        elif kind == "extra":
            header["another"] = copy.deepcopy(entry)
        else:
            return {"__metadata__": {}}
        return None

    return with_header(change)


@st.composite
def byte_mutations(draw: st.DrawFn) -> Mutation:
    """A file that was cut, grew, or is another one."""
    name = draw(st.sampled_from(["model.safetensors", "config.json"]))
    kind = draw(st.sampled_from(["cut", "append", "length", "replace", "remove", "directory"]))
    share = draw(st.floats(0.0, 0.99))
    noise = draw(st.binary(min_size=1, max_size=40))

    def mutate(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        if kind == "cut":
            path.write_bytes(content[: int(len(content) * share)])
        elif kind == "append":
            path.write_bytes(content + b"\x01" + noise)
        elif kind == "length":
            path.write_bytes(noise.ljust(8, b"\xff")[:8] + content[8:])
        elif kind == "replace":
            path.write_bytes(b"\x02" + noise)
        elif kind == "directory":
            path.mkdir()

    return mutate


@st.composite
def index_mutations(draw: st.DrawFn) -> Mutation:
    """An index that no longer describes its shards."""
    kind = draw(st.sampled_from(["value", "drop", "add", "path", "map", "shard"]))
    pick = draw(st.integers(0, 100))
    value = draw(ODD)
    path = draw(st.sampled_from(["../m", "/m", "a/../../m", "m\0", "\\m", "config.json", "x.safetensors", "."]))

    def change(index: dict[str, Any]) -> Any:
        weight_map = index["weight_map"]
        name = sorted(weight_map)[pick % len(weight_map)]
        if kind == "value":
            weight_map[name] = value
        elif kind == "drop":
            del weight_map[name]
        elif kind == "add":
            weight_map["another"] = weight_map[name]
        elif kind == "path":
            weight_map[name] = path
        elif kind == "map":
            index["weight_map"] = value
        return None

    def mutate(folder: Path) -> None:
        write_model(folder, shards=2)
        (folder / "model.safetensors").unlink()
        with_json("model.safetensors.index.json", change)(folder)
        if kind == "shard":
            sorted(folder.glob("model-*.safetensors"))[pick % 2].unlink()

    return mutate


@st.composite
def config_mutations(draw: st.DrawFn) -> Mutation:
    """A config that is none, or that describes another model."""
    sizes = ["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"]
    key = draw(st.sampled_from([*sizes, "num_hidden_layers", "model_type", "architectures", "hidden_act"]))
    wrong = st.one_of(
        st.integers(-5, 40), st.text(max_size=6), st.just([]), st.just({}), st.floats(0, 9), st.just(1 << 45)
    )
    values = {
        "num_hidden_layers": st.sampled_from([0, 2, 3, "1", None, [], 1.5]),
        "model_type": st.sampled_from(["", None, 3, "nothing", "gpt2", "vit", "t5", "llama"]),
        "architectures": st.sampled_from(["BertModel", 3, {}, [3], [None]]),
        "hidden_act": st.sampled_from(["", "nothing", "gelu "]),
    }
    value = draw(values.get(key, wrong.filter(lambda v: v != CONFIG.get(key))))
    return with_json("config.json", lambda config: config | {key: value})


def contents(folder: Path) -> str:
    """For the report of a failure."""
    files = {path.name: path.read_bytes()[:4000] for path in sorted(folder.iterdir()) if path.is_file()}
    return "\n".join(f"{name}: {content!r}" for name, content in files.items())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutation=st.one_of(header_mutations(), byte_mutations(), index_mutations(), config_mutations()))
def test_a_malformed_checkpoint_ends_in_an_error_of_ours(mutation: Mutation) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name) / "model")
        mutation(folder)
        note(contents(folder))
        before = sorted(folder.iterdir())
        with pytest.raises(ModelExportError) as raised:
            load(folder)
        assert len(raised.value.message) > 40
        assert sorted(folder.iterdir()) == before


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flipped_byte_in_a_header_is_an_error_of_ours_or_changes_nothing(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name) / "model")
        path = folder / "model.safetensors"
        content = bytearray(path.read_bytes())
        length = int.from_bytes(content[:8], "little")
        content[data.draw(st.integers(0, 7 + length))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with suppress(ModelExportError):
            load(folder)


@pytest.mark.parametrize(
    "mutation",
    [
        with_header(lambda header: {"__metadata__": {}}),
        with_header(lambda header: header.pop("pooler.dense.bias") and None),
        with_json("config.json", lambda config: config | {"num_hidden_layers": 2}),
        with_json("config.json", lambda config: config | {"vocab_size": 1 << 45}),
        with_json("config.json", lambda config: {}),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").unlink(),
    ],
)
def test_an_export_of_a_malformed_checkpoint_leaves_no_file(
    mutation: Mutation, tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    write_model(folder)
    mutation(folder)
    (out_parent := tmp_path / "parent").mkdir()
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(ModelExportError):
        export(folder, out_parent / "out", Options(), origin=Origin(), overwrite=False, emit=lambda _: None)
    assert list(out_parent.iterdir()) == []
    assert list(scratch.iterdir()) == []
