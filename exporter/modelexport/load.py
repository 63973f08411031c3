"""Load the PyTorch model, with the checkpoint's weights and no others.

:mod:`modelexport.completeness` says what may be missing and what may be left over.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _get_model_class
from transformers.utils import logging as transformers_logging

from modelexport import custom_class
from modelexport.bridge import Prepared
from modelexport.checkpoint import Checkpoint, TensorInfo
from modelexport.completeness import (
    Shapes,
    judge_missing,
    judge_unexpected,
    refuse_new_names,
    refuse_other_shapes,
)
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
    ConfigInvalidError,
    CustomCodeError,
    ModelExportError,
    OutOfMemoryError,
    TaskUnknownError,
    UnsupportedArchitectureError,
)

_MISSING, _UNEXPECTED = "_keys_to_ignore_on_load_missing", "_keys_to_ignore_on_load_unexpected"


@dataclass(frozen=True)
class Loaded:
    """A model whose weights are the checkpoint's.

    Attributes:
        model: in eval mode, on the CPU, without gradients.
        notes: deviations worth telling, one sentence each.
        uninitialised: names of parameters that hold no trained values; no exported graph may contain one.
    """

    model: PreTrainedModel
    notes: tuple[str, ...] = ()
    uninitialised: tuple[str, ...] = ()


def load_config(prepared: Prepared) -> PretrainedConfig:
    """The config as transformers 4.57 understands it.

    Raises:
        ConfigInvalidError: transformers rejects a value of it.
        UnsupportedArchitectureError: transformers has no such model type.
        CustomCodeError: only code from the repo knows the model type; or it is allowed, and fails.
    """
    try:
        config = AutoConfig.from_pretrained(prepared.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # config classes raise whatever the value made them raise
        raise _config_error(error, prepared) from error
    return custom_class.load_config(prepared, config)


def load_model(prepared: Prepared, checkpoint: Checkpoint, task: str, dtype: torch.dtype) -> Loaded:
    """Load the model with the class that Optimum exports the task with.

    Weights of the asked dtype stay memory-mapped files; others are converted one at a time.

    Args:
        prepared: the folder to load from, and how.
        checkpoint: what the folder holds.
        task: Optimum's name (``feature-extraction``, ``text-generation-with-past``, …).
        dtype: of the floating parameters; parts that the architecture insists on keeping in float32 stay so.

    Raises:
        TaskUnknownError: the task has no model class, or none for this architecture.
        CustomCodeError: the model is code of the repo, which fails or may not be run in this process.
        CheckpointIncompleteError: parameters have no trained values; the message names them.
        CheckpointMismatchError: config and weights do not belong together.
        CheckpointTooNewError: transformers 5 saved weights under names that 4.57 does not know.
        CheckpointUnreadableError: a ``.bin`` file is damaged, or is more than tensors.
        ConfigInvalidError: transformers cannot build the model.
        OutOfMemoryError: there is not enough memory.
    """
    config = load_config(prepared)
    auto_class, model_class = _classes(task, config, prepared)
    stored = _shapes(prepared.split.tensors) if prepared.split else _stored(checkpoint)
    skeleton = _skeleton(model_class, config)
    refuse_other_shapes(skeleton, _renamed(stored, skeleton, prepared))
    with _quietly(), _reporting_everything(model_class) as ignored:
        model, report = _from_pretrained(model_class if prepared.split else auto_class, prepared, config, dtype)
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    _tie(model, prepared.ties, missing)
    try:
        uninitialised = judge_missing(model, missing, ignored[_MISSING], task)
        notes = judge_unexpected(model, unexpected, stored, ignored[_UNEXPECTED])
    except (CheckpointIncompleteError, CheckpointMismatchError):
        if (checkpoint.saved_by_major or 0) >= 5:
            refuse_new_names(missing, unexpected)
        raise
    model.eval().requires_grad_(False)
    return Loaded(model, notes, uninitialised)


def _classes(task: str, config: PretrainedConfig, prepared: Prepared) -> tuple[type[Any], type[PreTrainedModel]]:
    """The class that Optimum loads with, and the concrete one behind it where that is an ``AutoModel…``."""
    if prepared.custom_code is not None:
        own = custom_class.model_class(prepared, task)
        return own, own
    try:
        loader: type[Any] = TasksManager.get_model_class_for_task(
            task, framework="pt", model_type=config.model_type, library="transformers"
        )
    except (KeyError, ValueError) as error:
        raise TaskUnknownError(
            f"The task {task!r} has no model class for {config.model_type}. Choose another task."
        ) from error
    mapping = getattr(loader, "_model_mapping", None)
    if mapping is None:
        return loader, loader
    if type(config) not in mapping:
        raise TaskUnknownError(
            f"transformers has no {config.model_type} model for the task {task!r}. Choose another task."
        )
    return loader, _get_model_class(config, mapping)


def _skeleton(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """The model without memory for its weights."""
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:  # model classes raise whatever the config made them raise
        raise _build_error(error) from error


def _renamed(stored: Shapes, skeleton: PreTrainedModel, prepared: Prepared) -> Shapes:
    """The stored tensors under the names that ``from_pretrained`` gives them, prefixes left alone."""
    mapping = dict(prepared.key_mapping or getattr(skeleton, "_checkpoint_conversion_mapping", None) or {})
    names = skeleton._get_key_renaming_mapping(list(stored), mapping)
    return {names[name]: shape for name, shape in stored.items()}


def _from_pretrained(
    loader: type[Any], prepared: Prepared, config: PretrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    options: dict[str, Any] = {}
    if prepared.attn_implementation:
        options["attn_implementation"] = prepared.attn_implementation
    source: Path | None = prepared.folder
    if prepared.split:  # from_pretrained then reads nothing itself
        source, options["state_dict"] = None, prepared.split.load(prepared.folder)
        with suppress(OSError):  # there is none, or none that can be read, which the bundle judges
            options["generation_config"] = GenerationConfig.from_pretrained(prepared.folder, local_files_only=True)
    if prepared.key_mapping:
        options["key_mapping"] = dict(prepared.key_mapping)
    try:
        return loader.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # as above
        raise _build_error(error) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from warning of what is judged here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


@contextmanager
def _reporting_everything(model_class: type[PreTrainedModel]) -> Iterator[Mapping[str, Sequence[str]]]:
    """Let transformers report the keys, too, that the class wants to be silent about; yields those patterns.

    The lists (``PreTrainedModel._adjust_missing_and_unexpected_keys``) hide keys from the report only. They cover tied
    and computed parameters, but also heads that are tied in most configs and not in this one.
    """
    names = (_MISSING, _UNEXPECTED)
    own = {name: model_class.__dict__[name] for name in names if name in model_class.__dict__}
    try:
        patterns = {name: tuple(getattr(model_class, name, None) or ()) for name in names}
        for name in names:
            setattr(model_class, name, None)
        yield patterns
    finally:
        for name in names:
            delattr(model_class, name)
        for name, value in own.items():
            setattr(model_class, name, value)


def _tie(model: PreTrainedModel, ties: Mapping[str, str], missing: Sequence[str]) -> None:
    """Share parameters that the checkpoint lacks and that this release would not share itself."""
    names = dict(model.named_parameters(remove_duplicate=False))
    for target, source in ties.items():
        if target in missing and source in names:
            owner, _, leaf = target.rpartition(".")
            setattr(model.get_submodule(owner), leaf, names[source])


def _stored(checkpoint: Checkpoint) -> Shapes:
    """Every tensor of the checkpoint; a ``.bin`` file is opened for it, memory-mapped."""
    if checkpoint.format == "safetensors":
        return _shapes(checkpoint.tensors)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in checkpoint.weights:
        shapes |= {name: tuple(tensor.shape) for name, tensor in _unpickled(checkpoint.root / file.path).items()}
    return shapes


def _shapes(tensors: Mapping[str, TensorInfo]) -> Shapes:
    return {name: info.shape for name, info in tensors.items()}


def _unpickled(path: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a ``.bin`` file, through torch's restricted unpickler."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        raise CheckpointUnreadableError(
            f"{path.name} is damaged, or is a pickle that needs more than tensors, which could run code and is not "
            "opened. Save the model again as safetensors."
        ) from error
    except Exception as error:  # a damaged pickle makes the unpickler raise anything
        raise CheckpointUnreadableError(f"{path.name} is damaged: {_first_line(error)} Download it again.") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointUnreadableError(
            f"{path.name} is not a map of names to tensors. Save the model with `save_pretrained`."
        )
    return content


def _config_error(error: Exception, prepared: Prepared) -> ModelExportError:
    text = str(error)
    if "trust_remote_code" in text:
        return CustomCodeError(
            "The model type is defined by Python code in the repo, which Optimum's users would not run. "
            "Export a version of the model that transformers supports itself."
        )
    if "does not recognize this architecture" in text or "Unrecognized model" in text:
        return UnsupportedArchitectureError(
            f"transformers 4.57 has no model type {prepared.config.get('model_type')!r}, and Optimum's ONNX export "
            "needs that release. Nothing can be done until Optimum supports it."
        )
    return ConfigInvalidError(f"transformers rejects config.json: {_first_line(error)} Correct the value.")


def _build_error(error: Exception) -> ModelExportError:
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "allocate memory" in text:
        return OutOfMemoryError("The model does not fit into memory. Use a machine with more of it.")
    if isinstance(error, ImportError):
        return UnsupportedArchitectureError(
            f"The model needs a package that is not part of the exporter: {_first_line(error)}"
        )
    if isinstance(error, OSError):
        return CheckpointUnreadableError(f"The weights cannot be read: {_first_line(error)} Download them again.")
    if isinstance(error, RuntimeError) and "loading state_dict" in text:
        return CheckpointMismatchError(f"The weights do not fit the model: {_first_line(error)}")
    return ConfigInvalidError(
        f"transformers cannot build the model that config.json describes: {type(error).__name__}: {_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
    return line if line.endswith((".", "!", "?")) else f"{line}."
