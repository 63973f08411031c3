"""Load the PyTorch model, and prove that every weight of it came from the checkpoint.

``from_pretrained`` fills what it does not find with random numbers and drops what it cannot place, with a warning. Here
both are errors:

1. A missing parameter is refused. Not missing: one that is tied to a parameter which was found, and one that its class
   computes (sinusoidal positions, index tables).
2. A missing *pooler* is left to the exporter: many base checkpoints lack it and most graphs do not use it. It is listed in
   :attr:`Loaded.uninitialised`, and a graph that contains one of those must not be published.
3. A shape that differs is refused.
4. A weight that the model has no place for is refused where it lies inside a part that the model has (a layer more, an
   additional projection). A head or pooler that the task does not use is noted.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _get_model_class

from modelexport.bridge import Prepared
from modelexport.checkpoint import Checkpoint
from modelexport.contract.errors import (
    CheckpointIncompleteError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
    ConfigInvalidError,
    CustomCodeError,
    OutOfMemoryError,
    TaskUnknownError,
    UnsupportedArchitectureError,
)

_POOLER = re.compile(r"(^|\.)[a-z_]*pool(er|ing|ing_layer|er_layer)?(\.|$)")
_IGNORE_LISTS = ("_keys_to_ignore_on_load_missing", "_keys_to_ignore_on_load_unexpected")


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
        CustomCodeError: only code from the repo knows the model type.
    """
    try:
        return AutoConfig.from_pretrained(prepared.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise CustomCodeError(
                "The model is defined by Python code in the repo, which is not run. "
                "Export a version of the model that transformers supports itself."
            ) from error
        if "does not recognize this architecture" in text or "Unrecognized model" in text:
            raise UnsupportedArchitectureError(
                f"transformers 4.57 has no model type {prepared.config.get('model_type')!r}, and Optimum's ONNX export needs "
                "that release. Nothing can be done until Optimum supports it."
            ) from error
        raise ConfigInvalidError(f"transformers rejects config.json: {_first_line(error)} Correct the value.") from error


def load_model(prepared: Prepared, checkpoint: Checkpoint, task: str, dtype: torch.dtype) -> Loaded:
    """Load the model with the class that Optimum exports the task with.

    Weights of the asked dtype stay memory-mapped files; others are converted one at a time.

    Args:
        task: Optimum's name (``feature-extraction``, ``text-generation-with-past``, …).
        dtype: of the floating parameters; parts that the architecture insists on keeping in float32 stay so.

    Raises:
        TaskUnknownError: the task has no model class, or none for this architecture.
        CheckpointIncompleteError: parameters have no trained values; the message names them.
        CheckpointMismatchError: config and weights do not belong together.
        CheckpointUnreadableError: a ``.bin`` file is damaged, or is more than tensors.
        OutOfMemoryError: there is not enough memory.
    """
    config = load_config(prepared)
    auto_class = _auto_class(task, config)
    model_class = _model_class(auto_class, config, task)
    keys = _checkpoint_keys(checkpoint)
    with _reporting_everything(model_class) as ignored:
        model, report = _from_pretrained(auto_class, prepared, config, dtype)
    if report["mismatched_keys"]:
        raise _wrong_shapes(model, report["mismatched_keys"])
    _tie(model, prepared.ties, report["missing_keys"])
    uninitialised = _missing(model, report["missing_keys"], ignored["_keys_to_ignore_on_load_missing"], task)
    notes = _unexpected(model, report["unexpected_keys"], keys, ignored["_keys_to_ignore_on_load_unexpected"])
    model.eval().requires_grad_(False)
    return Loaded(model, notes, uninitialised)


def _auto_class(task: str, config: PretrainedConfig) -> type[Any]:
    try:
        loader: type[Any] = TasksManager.get_model_class_for_task(
            task, framework="pt", model_type=config.model_type, library="transformers"
        )
    except (KeyError, ValueError) as error:
        raise TaskUnknownError(f"The task {task!r} has no model class for {config.model_type}. Choose another task.") from error
    return loader


def _model_class(loader: type[Any], config: PretrainedConfig, task: str) -> type[PreTrainedModel]:
    """The class behind an ``AutoModel…``; a concrete class is its own."""
    mapping = getattr(loader, "_model_mapping", None)
    if mapping is None:
        return loader
    if type(config) not in mapping:
        raise TaskUnknownError(f"transformers has no {config.model_type} model for the task {task!r}. Choose another task.")
    found: type[PreTrainedModel] = _get_model_class(config, mapping)
    return found


def _from_pretrained(
    loader: type[Any], prepared: Prepared, config: PretrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    options: dict[str, Any] = {}
    if prepared.attn_implementation:
        options["attn_implementation"] = prepared.attn_implementation
    if prepared.key_mapping:
        options["key_mapping"] = dict(prepared.key_mapping)
    try:
        model, report = loader.from_pretrained(
            prepared.folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            low_cpu_mem_usage=True,
            ignore_mismatched_sizes=True,  # reported, and refused by the caller with every name
            output_loading_info=True,
            **options,
        )
    except MemoryError as error:
        raise OutOfMemoryError("The model does not fit into memory. Use a machine with more of it.") from error
    except OSError as error:
        raise CheckpointUnreadableError(f"The weights cannot be read: {_first_line(error)} Download them again.") from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "allocate memory" in str(error):
            raise OutOfMemoryError("The model does not fit into memory. Use a machine with more of it.") from error
        raise CheckpointMismatchError(f"The weights do not fit the model: {_first_line(error)}") from error
    except (ValueError, TypeError, AttributeError, KeyError, AssertionError, ZeroDivisionError, ImportError) as error:
        raise ConfigInvalidError(
            f"transformers cannot build the model that config.json describes: {type(error).__name__}: {_first_line(error)}"
        ) from error
    return model, report


@contextmanager
def _reporting_everything(model_class: type[PreTrainedModel]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Let transformers report the keys, too, that the class wants to be silent about; yields those patterns.

    The lists (``PreTrainedModel._adjust_missing_and_unexpected_keys``) hide keys from the report only. They cover tied and
    computed parameters, but also heads that are tied in most configs and not in this one.
    """
    patterns = {name: tuple(getattr(model_class, name, None) or ()) for name in _IGNORE_LISTS}
    own = {name: model_class.__dict__[name] for name in _IGNORE_LISTS if name in model_class.__dict__}
    try:
        for name in _IGNORE_LISTS:
            setattr(model_class, name, None)
        yield patterns
    finally:
        for name in _IGNORE_LISTS:
            if name in own:
                setattr(model_class, name, own[name])
            else:
                delattr(model_class, name)


def _tie(model: PreTrainedModel, ties: Mapping[str, str], missing: list[str]) -> None:
    """Share parameters that the checkpoint lacks and that this release would not share itself."""
    names = dict(model.named_parameters(remove_duplicate=False))
    for target, source in ties.items():
        if target in missing and source in names:
            owner, _, leaf = target.rpartition(".")
            setattr(model.get_submodule(owner), leaf, names[source])


def _missing(model: PreTrainedModel, missing: list[str], ignored: tuple[str, ...], task: str) -> tuple[str, ...]:
    """Refuse missing parameters; return the poolers among them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    filled = {id(p) for name, p in parameters.items() if name not in missing}
    absent: list[str] = []
    for name in missing:
        if name in parameters and id(parameters[name]) in filled:
            continue  # tied to a parameter that was found
        known = any(re.search(pattern, name) for pattern in ignored)
        if name in buffers and (known or not buffers[name].is_floating_point()):
            continue  # masks, position ids, relative position tables: functions of the config
        if name in parameters and known and _is_computed(model, name):
            continue
        absent.append(name)
    poolers = tuple(name for name in absent if _POOLER.search(name))
    if lost := [name for name in absent if name not in poolers]:
        heads = [name for name in lost if not name.startswith(f"{model.base_model_prefix}.")]
        whole_head = hasattr(model, model.base_model_prefix) and len(heads) == len(lost)
        advice = (
            f"The checkpoint has no trained head for the task {task!r}; choose a task that it was trained for."
            if whole_head
            else "Upload the complete weights."
        )
        raise CheckpointIncompleteError(
            f"{type(model).__name__} needs weights that the checkpoint does not have: {_some(lost)}. "
            f"Random numbers would take their place. {advice}"
        )
    return poolers


def _is_computed(model: PreTrainedModel, name: str) -> bool:
    """Whether initialising the parameter twice gives the same values, as sinusoidal positions do and random ones do not."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    values = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model._init_weights(module)
        values.append(getattr(module, leaf).detach().clone())
    return torch.equal(*values)


def _unexpected(
    model: PreTrainedModel, unexpected: list[str], keys: tuple[str, ...], ignored: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse weights inside a part that the model has; a note for heads that it does not have."""
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    prefixed = bool(prefix) and any(key.startswith(prefix) for key in keys)
    root = getattr(model, model.base_model_prefix, model) if model.base_model_prefix else model
    unused: list[str] = []
    for key in unexpected:
        if key.endswith("rotary_emb.inv_freq") or any(re.search(pattern, key) for pattern in ignored):
            continue
        in_base = f"{prefix}{key}" in keys or key.startswith(prefix) if prefixed else root is model
        name = key.removeprefix(prefix)
        part = name.split(".", 1)[0]
        if _POOLER.search(name) and not _has(root, part):
            unused.append(part)
        elif in_base or _has(model, part):
            raise CheckpointMismatchError(
                f"{type(model).__name__} has no place for {key}, which the checkpoint holds, so it would compute something "
                "else than what was trained. Config and weights do not belong together, or a newer release saved them."
            )
        else:
            unused.append(part)
    if not unused:
        return ()
    return (f"Weights that the task does not use were left out: {', '.join(sorted(set(unused)))}.",)


def _has(module: torch.nn.Module, name: str) -> bool:
    return hasattr(module, name)


def _wrong_shapes(model: PreTrainedModel, mismatched: list[Any]) -> CheckpointMismatchError:
    names = [key if isinstance(key, str) else str(key[0]) for key in mismatched]
    return CheckpointMismatchError(
        f"{_some(names)} in the checkpoint have other shapes than {type(model).__name__} with this config. "
        "Config and weights do not belong together; upload the config that the weights were trained with."
    )


def _checkpoint_keys(checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.format == "safetensors":
        return tuple(checkpoint.tensors)
    return tuple(key for file in checkpoint.weights for key in _pickled(checkpoint.root / file.path))


def _pickled(path: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a ``.bin`` file, memory-mapped, through torch's restricted unpickler."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        raise CheckpointUnreadableError(
            f"{path.name} is damaged, or is a pickle that needs more than tensors, which could run code and is not opened. "
            "Save the model again as safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise CheckpointUnreadableError(f"{path.name} is damaged: {_first_line(error)} Download it again.") from error
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointUnreadableError(f"{path.name} is not a map of names to tensors. Save the model with `save_pretrained`.")
    return content


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line[:300] if line.endswith((".", "!", "?")) else f"{line[:300]}."


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
