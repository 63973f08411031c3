"""Which weight files a folder has, and whether index, shards and headers agree.

The order in which transformers looks (``PreTrainedModel.from_pretrained``): ``model.safetensors``, its index,
``pytorch_model.bin``, its index. A pickle is considered only where there is no safetensors file at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelexport.checkpoint.folder import Folder
from modelexport.checkpoint.model import Format, TensorInfo, WeightFile
from modelexport.checkpoint.safetensors_header import read_header
from modelexport.contract.errors import CheckpointIncompleteError, CheckpointUnreadableError

SAFETENSORS = "model.safetensors"
BIN = "pytorch_model.bin"
_FORMATS: tuple[tuple[str, Format], ...] = ((SAFETENSORS, "safetensors"), (BIN, "bin"))

_ELSEWHERE = {
    "tf_model.h5": "TensorFlow",
    "model.ckpt.index": "TensorFlow 1",
    "flax_model.msgpack": "Flax",
    "rust_model.ot": "Rust",
}
_FRAMEWORKS = {"tf": "TensorFlow", "flax": "Flax"}


@dataclass(frozen=True)
class Weights:
    """The weight files of a folder and, for safetensors, what they hold."""

    format: Format
    files: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorInfo]


def find_weights(folder: Folder) -> Weights:
    """Find and check the weight files.

    Raises:
        CheckpointIncompleteError: there are none, a shard is missing, or index and shards name different tensors.
        CheckpointUnreadableError: a file breaks its format, or a name leads out of the folder.
    """
    for name, form in _FORMATS:
        if folder.has(name):
            return _read(folder, form, (name,))
        index = f"{name}.index.json"
        if folder.has(index):
            weight_map = _weight_map(folder, index)
            weights = _read(folder, form, tuple(sorted(set(weight_map.values()))))
            if form == "safetensors":
                _agree(weight_map, weights.tensors, index)
            return weights
    raise _nothing(folder)


def _read(folder: Folder, form: Format, names: tuple[str, ...]) -> Weights:
    files: list[WeightFile] = []
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        try:
            path = folder.path(name)
        except FileNotFoundError:
            raise CheckpointIncompleteError(
                f"The weight file {name} is missing: the checkpoint lists it and the folder does not have it. "
                "Download the repo again, or upload the file."
            ) from None
        files.append(WeightFile(name, path.stat().st_size))
        if form == "bin":
            with path.open("rb") as stream:
                _not_a_pointer(stream.read(8), name)
            continue
        header = read_header(path, name)
        _for_torch(header.metadata.get("format", "pt"), name)
        for key, entry in header.tensors.items():
            if key in tensors:
                raise CheckpointUnreadableError(
                    f"The tensor {key!r} is in {tensors[key].file} and in {name}, so its value is not known. "
                    "Save the model again."
                )
            tensors[key] = TensorInfo(entry.dtype, entry.shape, name, entry.offset, entry.nbytes)
    if form == "safetensors" and not tensors:
        raise CheckpointIncompleteError(f"{', '.join(names)} holds no tensors. Upload the trained weights.")
    return Weights(form, tuple(files), tensors)


def _for_torch(framework: str, name: str) -> None:
    """MLX stores what torch stores; the others have layouts of their own."""
    if framework not in ("pt", "mlx"):
        raise CheckpointIncompleteError(
            f"{name} was saved for {_FRAMEWORKS.get(framework, framework)}, which names and lays out weights in "
            "another way. Convert it with transformers (`from_pretrained(..., from_tf=True)` or `from_flax=True`) and "
            "save the model."
        )


def _not_a_pointer(head: bytes, name: str) -> None:
    if head == b"version ":
        raise CheckpointUnreadableError(
            f"{name} is a Git LFS pointer, not the weights: the repo was cloned without git-lfs. "
            "Run `git lfs pull` in the folder, or download the repo again."
        )
    if not head:
        raise CheckpointUnreadableError(f"{name} is empty. Download it again, or save the model again.")


def _weight_map(folder: Folder, index: str) -> dict[str, str]:
    content: dict[str, Any] = folder.json(index, CheckpointUnreadableError)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(type(v) is str for v in weight_map.values()):
        raise CheckpointUnreadableError(
            f"{index} has no valid weight_map (tensor name to file name). Save the model again."
        )
    return weight_map


def _agree(weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo], index: str) -> None:
    absent = sorted(key for key in weight_map if key not in tensors or tensors[key].file != weight_map[key])
    unlisted = sorted(set(tensors) - set(weight_map))
    if absent:
        raise CheckpointIncompleteError(
            f"{index} lists {_some(absent)} in a shard that does not hold them. Upload the shards that belong to "
            "the index."
        )
    if unlisted:
        raise CheckpointIncompleteError(
            f"The shards hold {_some(unlisted)}, which {index} does not list. Upload the index that belongs to the "
            "shards."
        )


def _nothing(folder: Folder) -> CheckpointIncompleteError:
    names = folder.names()
    stray = sorted(name for name in names if name.startswith(("model-", "pytorch_model-")) and "-of-" in name)
    if stray:
        return CheckpointIncompleteError(
            f"The folder has shards ({_some(stray)}) and no index that lists them, so nobody knows which belong "
            f"together. Upload {SAFETENSORS}.index.json."
        )
    frameworks = [framework for name, framework in _ELSEWHERE.items() if name in names]
    if frameworks:
        return CheckpointIncompleteError(
            f"The folder has weights for {' and '.join(frameworks)} only; the export needs {SAFETENSORS} (or {BIN}). "
            "Convert them with transformers (`from_pretrained(..., from_tf=True)` or `from_flax=True`) and save the "
            "model."
        )
    return CheckpointIncompleteError(
        f"The folder has a config and no weights: neither {SAFETENSORS} nor {BIN}, whole or in shards. Upload the "
        "weights."
    )


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
