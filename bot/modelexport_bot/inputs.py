"""Which files of a repo an export reads, and when two commits are the same to it.

1. Weights: ``model.safetensors``, else its shards and their index, else ``pytorch_model.bin``, else its shards. One of
   them, never two: they hold the same numbers, and the safer, faster format comes first.
2. Configuration, tokenizer and processor: JSON and text files at the top, vocabulary files, chat templates.
3. sentence-transformers keeps modules in numbered folders (``1_Pooling/``); if ``modules.json`` is there, 1 and 2 hold
   in each of them too.
4. ``README.md``, because its metadata names the task and the library.
5. Only where the operator allows the repo's code: the Python files at the top. (The exporter runs those that
   ``config.json`` names, and what they import.)

Never: ``onnx/`` and other exports, TensorFlow, Flax, GGUF, training state.

Rules 1 to 3, and 5, make the *inputs*. A commit that leaves them alone (a better README, another export) changes
nothing for us.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from modelexport_bot.hub import HubFile

MODEL_CARD = "README.md"

_WEIGHTS: tuple[tuple[re.Pattern[str], ...], ...] = (
    (re.compile(r"model\.safetensors"),),
    (re.compile(r"model-\d{5}-of-\d{5}\.safetensors"), re.compile(r"model\.safetensors\.index\.json")),
    (re.compile(r"pytorch_model\.bin"),),
    (re.compile(r"pytorch_model-\d{5}-of-\d{5}\.bin"), re.compile(r"pytorch_model\.bin\.index\.json")),
)
_CONFIGURATION = re.compile(
    r"[^/]+\.(json|txt|model|spm|bpe|codes|vocab|tiktoken|jinja)|additional_chat_templates/[^/]+\.jinja"
)
_NOT_READ = re.compile(
    r"(all|eval|train|test|predict)_results\.json|(trainer_state|eval_result|eval_results|metrics|modelexport)\.json"
    r"|(requirements|license|notice|log|train_log|training_log)\.txt|.*\.index\.json|.*(openvino|ggml|gguf|tf_|flax_|onnx|rust_).*",
    re.IGNORECASE,
)
_CODE = re.compile(r"[^/]+\.py")
_MODULE_FOLDER = re.compile(r"(\d+_[^/]+)/")


def weights(files: Mapping[str, HubFile]) -> list[HubFile]:
    """The weight files to read (rule 1, and 3), indexes included."""
    return [file for folder in _folders(files) for file in _weights_in(folder, files)]


def inputs(files: Mapping[str, HubFile], *, code: bool = False) -> list[HubFile]:
    """Everything whose change makes another export (rules 1 to 3, and 5 with ``code``), by path."""
    found = {file.path: file for file in weights(files)}
    for folder in _folders(files):
        for path, file in files.items():
            name = path.removeprefix(folder)
            if path.startswith(folder) and _CONFIGURATION.fullmatch(name) and not _NOT_READ.fullmatch(name):
                found[path] = file
    if code:
        found |= {path: file for path, file in files.items() if _CODE.fullmatch(path)}
    return sorted(found.values(), key=lambda file: file.path)


def snapshot(files: Mapping[str, HubFile], *, code: bool = False) -> list[HubFile]:
    """The files to fetch: the inputs and the model card."""
    card = [files[MODEL_CARD]] if MODEL_CARD in files else []
    return [*card, *inputs(files, code=code)]


def digest(files: Iterable[HubFile]) -> str:
    """One hash over paths and contents: equal digests, equal files."""
    lines = sorted(f"{file.path}\0{file.oid}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folders(files: Mapping[str, HubFile]) -> list[str]:
    modules = {match.group() for path in files if (match := _MODULE_FOLDER.match(path))}
    return ["", *sorted(modules)] if "modules.json" in files else [""]


def _weights_in(folder: str, files: Mapping[str, HubFile]) -> list[HubFile]:
    for patterns in _WEIGHTS:
        found = [
            file
            for path, file in files.items()
            if path.startswith(folder) and any(pattern.fullmatch(path.removeprefix(folder)) for pattern in patterns)
        ]
        if any(not file.path.endswith(".json") for file in found):
            return sorted(found, key=lambda file: file.path)
    return []
