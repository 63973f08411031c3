"""Small model folders, written by hand so that every byte of them is known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
    "transformers_version": "4.40.0",
}

_LAYER = {
    "attention.self.query": (8, 8),
    "attention.self.key": (8, 8),
    "attention.self.value": (8, 8),
    "attention.output.dense": (8, 8),
    "intermediate.dense": (8, 8),
    "output.dense": (8, 8),
}


def bert_shapes(layers: int = 1, pooler: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ``BertModel`` with :data:`CONFIG`."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (16, 8),
        "embeddings.position_embeddings.weight": (8, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
    }
    norms = ["embeddings.LayerNorm"]
    dense: dict[str, tuple[int, int]] = {"pooler.dense": (8, 8)} if pooler else {}
    for layer in range(layers):
        norms += [f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")]
        dense |= {f"encoder.layer.{layer}.{name}": shape for name, shape in _LAYER.items()}
    for name in norms:
        shapes |= {f"{name}.weight": (8,), f"{name}.bias": (8,)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def write_safetensors(
    path: Path, shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str] | None = None
) -> None:
    """A float32 file with the named tensors, whose values count up."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    data = b""
    for name, shape in shapes.items():
        length = 4
        for size in shape:
            length *= size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + length]}
        data += bytes([len(data) % 7, 0, 0, 0x3C]) * (length // 4)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def write_model(folder: Path, config: Mapping[str, Any] | None = None, shards: int = 1, **shape_options: Any) -> Path:
    """A BERT folder, whole or in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(config or {})))
    shapes = bert_shapes(**shape_options)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", shapes)
        return folder
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(shapes.items())[number::shards])
        write_safetensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
