"""Read a model folder: the story of :func:`read`, top-down."""

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from modelexport.checkpoint.custom_code import read_custom_code
from modelexport.checkpoint.folder import Folder
from modelexport.checkpoint.model import Checkpoint, Library
from modelexport.checkpoint.native import model_type_of
from modelexport.checkpoint.refusal import refuse_config, refuse_dtypes, without_config
from modelexport.checkpoint.safetensors_header import torch_float_name
from modelexport.checkpoint.weights import Weights, find_weights
from modelexport.contract.errors import CheckpointUnreadableError, ConfigInvalidError, SourceNotFoundError

TOKENIZER_PATTERNS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_file.json",
    "vocab", "vocab.txt", "vocab.json", "vocab-*.json", "vocab_*.json", "*.vocab", "merges.txt", "dict.txt",
    "emoji.json", "*.model", "*.spm", "*.tiktoken", "*.bpe", "*.codes", "entity_vocab.json", "normalizer.json",
    "monolingual_vocab_file", "prophetnet.tokenizer", "chat_template.json", "chat_template.jinja",
)  # fmt: skip
"""``vocab_files_names`` of the tokenizer classes of transformers 4.57, and the files that every tokenizer may have."""

PROCESSOR_PATTERNS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
"""The names in ``transformers.utils`` (``FEATURE_EXTRACTOR_NAME``, ``PROCESSOR_NAME``, …)."""

CHAT_TEMPLATES = "additional_chat_templates"
"""``transformers.utils.hub.CHAT_TEMPLATE_DIR``."""

_SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")


def read(root: Path, *, trust_remote_code: bool = False) -> Checkpoint:
    """Read what a model folder holds and check that it can be trusted; loads no weights.

    Args:
        root: the folder.
        trust_remote_code: the operator allows the code of this model to be run (later, and without network: see
            :mod:`modelexport.confinement`); as in transformers, it is then preferred to a class of the same name.

    Raises:
        SourceNotFoundError: there is no such folder.
        ConfigMissingError: no ``config.json``; the message says what the folder seems to be instead.
        ConfigInvalidError: ``config.json`` is not JSON, or does not say which architecture it describes.
        UnsupportedLibraryError: the folder belongs to diffusers, timm or another library.
        CustomCodeError: the model is defined by code in the repo, which is not allowed or leads out of the repo.
        CheckpointQuantizedError: the weights are quantised.
        CheckpointIncompleteError: weights are missing, or index and shards do not agree.
        CheckpointUnreadableError: a file breaks its format, or a name leads out of the folder.
    """
    if not root.is_dir():
        raise SourceNotFoundError(f"{root} is not a folder. Name a folder that holds a model, or a repo of the Hub.")
    folder = Folder(root)
    try:
        return _read(folder, trust_remote_code)
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else root.name
        raise CheckpointUnreadableError(
            f"{name} cannot be read: {error.strerror or error}. Check the file and its permissions."
        ) from error


def _read(folder: Folder, trust_remote_code: bool) -> Checkpoint:
    config = _config(folder)
    refuse_config(folder, config, trust_remote_code=trust_remote_code)
    custom_code = read_custom_code(folder, config) if trust_remote_code else None
    model_type, notes = _model_type(config)
    weights = find_weights(folder)
    refuse_dtypes(frozenset(info.dtype for info in weights.tensors.values()))
    names = folder.names()
    saved_by = config.get("transformers_version")
    return Checkpoint(
        root=folder.root,
        config=config,
        model_type=model_type,
        architectures=_architectures(config),
        weights=weights.files,
        tensors=weights.tensors,
        format=weights.format,
        saved_by=saved_by if isinstance(saved_by, str) else None,
        library=_library(names),
        dtype=_dtype(weights, config),
        nbytes=sum(info.nbytes for info in weights.tensors.values()) or sum(file.size for file in weights.files),
        tokenizer_files=_matching(folder, names, TOKENIZER_PATTERNS),
        processor_files=_matching(folder, names, PROCESSOR_PATTERNS),
        generation_config="generation_config.json" in names,
        notes=(*notes, custom_code.note) if custom_code else notes,
        custom_code=custom_code,
    )


def _config(folder: Folder) -> dict[str, Any]:
    if not folder.has("config.json"):
        raise without_config(folder)
    try:
        config = folder.json("config.json", ConfigInvalidError)
    except FileNotFoundError:
        raise without_config(folder) from None
    if config.get("transformers_weights") is not None:
        raise ConfigInvalidError(
            "config.json names its weight file itself (transformers_weights), which only transformers reads. "
            " Rename the file to model.safetensors and remove the key."
        )
    return config


def _model_type(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The model type, and a note where ``architectures`` had to tell it.

    transformers itself would guess it from the folder's name (``AutoConfig.from_pretrained``); a name proves nothing.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type:
        return model_type, ()
    for architecture in _architectures(config):
        if implied := model_type_of(architecture):
            return implied, (f"config.json has no model_type; {architecture} implies {implied!r}.",)
    raise ConfigInvalidError(
        "config.json has no model_type, so it is not known which architecture the weights belong to. "
        'Add it ("model_type": "bert", say), or save the model again with transformers.'
    )


def _architectures(config: Mapping[str, Any]) -> tuple[str, ...]:
    value = config.get("architectures")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigInvalidError("architectures in config.json is not a list of class names. Correct the file.")
    return tuple(value)


def _library(names: frozenset[str]) -> Library:
    return "sentence_transformers" if any(name in names for name in _SENTENCE_TRANSFORMERS) else "transformers"


def _dtype(weights: Weights, config: Mapping[str, Any]) -> str:
    sizes: Counter[str] = Counter()
    for info in weights.tensors.values():
        if name := torch_float_name(info.dtype):
            sizes[name] += info.nbytes
    if sizes:
        return sizes.most_common(1)[0][0]
    declared = config.get("dtype", config.get("torch_dtype"))
    return declared.removeprefix("torch.") if isinstance(declared, str) and declared != "auto" else "float32"


def _matching(folder: Folder, names: frozenset[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The files that match, each checked to lie inside the folder, and the chat templates of their own folder."""
    found = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    if patterns is TOKENIZER_PATTERNS:
        found += [f"{CHAT_TEMPLATES}/{path.name}" for path in (folder.root / CHAT_TEMPLATES).glob("*.jinja")]
    for name in found:
        folder.path(name)
    return tuple(sorted(found))
