"""Folders that are not transformers checkpoints, or not ones whose arithmetic can be kept: each refusal in its words.

Two questions, asked in this order by :mod:`modelexport.checkpoint.reading`:

* :func:`without_config`: there is no ``config.json``; what is this folder then, and what should its owner do?
* :func:`refuse_config`: there is one, and it belongs to another library, to quantised weights, or to custom code.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from modelexport.checkpoint.custom_code import models_of
from modelexport.checkpoint.folder import Folder
from modelexport.checkpoint.native import is_native_model_class, is_native_model_type
from modelexport.contract.errors import (
    CheckpointQuantizedError,
    ConfigMissingError,
    CustomCodeError,
    ModelExportError,
    UnsupportedLibraryError,
)

_MARKER_FILES: Mapping[str, str] = {
    "model_index.json": "diffusers",
    "open_clip_config.json": "open_clip",
    "params.json": "Mistral's or Meta's own reference code",
    "hyperparams.yaml": "SpeechBrain",
    "meta.json": "spaCy",
    "training_config.bin": "Flair",
    "config.yaml": "a training framework of its own",
    "config.yml": "a training framework of its own",
}
_SUFFIXES: Mapping[str, str] = {
    ".keras": "Keras",
    ".nemo": "NVIDIA NeMo",
    ".mlmodel": "Core ML",
    ".tflite": "TensorFlow Lite",
    ".skops": "scikit-learn",
    ".joblib": "scikit-learn",
    ".llamafile": "llamafile",
}

_WHY_CONFIG = "It says which architecture the weights belong to, so nothing can be loaded without it."


def without_config(folder: Folder) -> ModelExportError:
    """The error for a folder without ``config.json``: says what the folder seems to be."""
    names = folder.names()
    if "adapter_config.json" in names:
        return _adapter(folder)
    for marker, library in _MARKER_FILES.items():
        if marker in names:
            return _other_library(library, marker)
    for suffix, library in _SUFFIXES.items():
        for name in sorted(names):
            if name.endswith(suffix):
                return _other_library(library, name)
    if gguf := [name for name in sorted(names) if name.endswith(".gguf")]:
        return ConfigMissingError(
            f"config.json is missing: the folder has GGUF files only ({gguf[0]}), which are quantised for llama.cpp. "
            f"{_WHY_CONFIG} Export the repo that the GGUF files were made from."
        )
    if onnx := _onnx_files(folder, names):
        return ConfigMissingError(
            f"config.json is missing: the folder already holds ONNX ({onnx}) and no PyTorch model to compare it with. "
            f"{_WHY_CONFIG} Export the repo that has the PyTorch weights; `modelexport check` looks at an ONNX folder."
        )
    for nested in ("0_Transformer", "transformer", "model"):
        if (folder.root / nested / "config.json").is_file():
            return ConfigMissingError(
                f"config.json is missing at the top of the folder; there is one in {nested}/. {_WHY_CONFIG} "
                f"Export that folder itself ({folder.root.name}/{nested})."
            )
    found = f"The folder has {', '.join(sorted(names)[:5])}." if names else "The folder is empty."
    return ConfigMissingError(
        f"config.json is missing. {_WHY_CONFIG} {found} Save the model with transformers (`model.save_pretrained`), "
        "which writes both."
    )


def refuse_config(folder: Folder, config: Mapping[str, Any], *, trust_remote_code: bool = False) -> None:
    """Refuse a config whose checkpoint cannot be exported faithfully.

    Args:
        trust_remote_code: the operator allows code of this repo.

    Raises:
        UnsupportedLibraryError: the config belongs to diffusers, timm or another library.
        ConfigMissingError: the weights are an adapter's and the base model's are not there.
        CheckpointQuantizedError: the weights are quantised.
        CustomCodeError: the model needs Python code from the repo, which is not allowed.
    """
    names = folder.names()
    if "model_type" not in config:
        if "pretrained_cfg" in config or ("architecture" in config and "num_features" in config):
            raise _other_library("timm", "config.json")
        if "_class_name" in config or "model_index.json" in names:
            raise _other_library("diffusers", "config.json")
    elif "model_index.json" in names:
        raise _other_library("diffusers", "model_index.json")
    if (
        "adapter_config.json" in names
        and not {"model.safetensors", "pytorch_model.bin"} & names
        and not _sharded(names)
    ):
        raise _adapter(folder)
    for where, quantization in _quantizations(config):
        raise _quantized(where, quantization)
    if not (trust_remote_code and models_of(config)):
        _refuse_custom_code(config)


def refuse_dtypes(dtypes: frozenset[str]) -> None:
    """Refuse weights stored in dtypes of 8 bits and fewer, whatever the config says about them.

    Raises:
        CheckpointQuantizedError: there are such tensors.
    """
    if low := sorted(dtype for dtype in dtypes if dtype.startswith(("F8", "F6", "F4"))):
        raise CheckpointQuantizedError(
            f"The checkpoint stores tensors as {', '.join(low)}. Such weights mean nothing without the scales and "
            "kernels of their quantisation scheme, which ONNX does not have. Export the unquantised checkpoint."
        )


def _quantizations(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every quantisation config, those of sub-models included."""
    for key in ("quantization_config", "compression_config", "quantization"):  # the last is MLX's
        value = config.get(key)
        if isinstance(value, dict) and value:
            yield key, value
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict) and isinstance(value.get("quantization_config"), dict):
            yield f"{key}.quantization_config", value["quantization_config"]


def _quantized(where: str, quantization: Mapping[str, Any]) -> CheckpointQuantizedError:
    method = quantization.get("quant_method")
    if method is None:
        method = next(
            (f"bitsandbytes {bits}" for bits in ("4bit", "8bit") if quantization.get(f"load_in_{bits}")), "unknown"
        )
    return CheckpointQuantizedError(
        f"The checkpoint is quantised ({where}: {method}). Its weights mean nothing without the kernels of that "
        "scheme, which ONNX does not have. Export the unquantised checkpoint that it was made from."
    )


def _refuse_custom_code(config: Mapping[str, Any]) -> None:
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    foreign = [name for name in architectures if isinstance(name, str) and is_native_model_class(name) is False]
    if foreign or (isinstance(model_type, str) and is_native_model_type(model_type) is False):
        name = foreign[0] if foreign else str(model_type)
        code = next((value for value in auto_map.values() if isinstance(value, str)), "its own modelling file")
        raise CustomCodeError(
            f"The model is defined by Python code in the repo ({code}) and not by transformers, which has no {name}. "
            "Code from a repo is not run unless the operator allows that repo by name (--trust-remote-code). Export a "
            "version of the model that transformers supports itself, or read the code and allow it."
        )


def _adapter(folder: Folder) -> ConfigMissingError:
    base: object = None
    with suppress(ModelExportError, OSError):
        base = folder.json("adapter_config.json").get("base_model_name_or_path")
    named = f"of {base}" if isinstance(base, str) and base else "of a base model that adapter_config.json does not name"
    return ConfigMissingError(
        f"The repo holds a PEFT adapter {named}, without the config and weights of the base model, so there is "
        "nothing to export. Merge it (`PeftModel.from_pretrained(base, "
        "adapter).merge_and_unload().save_pretrained(folder)`) and export the merged model."
    )


def _other_library(library: str, marker: str) -> UnsupportedLibraryError:
    return UnsupportedLibraryError(
        f"The folder belongs to {library} ({marker}), and modelexport exports transformers and sentence-transformers "
        f"models. Use {library}'s own ONNX export, where it has one."
    )


def _onnx_files(folder: Folder, names: frozenset[str]) -> str | None:
    for name in sorted(names):
        if name.endswith(".onnx"):
            return name
    nested = sorted(path.name for path in folder.root.glob("onnx/*.onnx"))
    return f"onnx/{nested[0]}" if nested else None


def _sharded(names: frozenset[str]) -> bool:
    return bool({"model.safetensors.index.json", "pytorch_model.bin.index.json"} & names)
