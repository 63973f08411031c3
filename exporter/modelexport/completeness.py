"""Whether a checkpoint and a model belong together, weight by weight.

``from_pretrained`` fills what it does not find with random numbers and drops what it cannot place, with a warning. Here
both are errors:

1. A shape that differs is refused, before any memory is taken for it.
2. A missing parameter is refused. Not missing: one that is tied to a parameter which was found, and one that its class
   computes (sinusoidal positions, index tables).
3. A missing *pooler* is left to the exporter: many base checkpoints lack it and most graphs do not use it.
4. A weight that the model has no place for is refused where it lies inside a part that the model has (a layer more, an
   additional projection). A head or pooler that the task does not use is noted.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from modelexport.contract.errors import CheckpointIncompleteError, CheckpointMismatchError, CheckpointTooNewError

Shapes = Mapping[str, tuple[int, ...]]
"""Shape by name of a tensor."""

_POOLER = re.compile(r"(^|\.)[a-z_]*pool(er|ing|ing_layer|er_layer)?(\.|$)")
_SLACK = 1 << 28  # elements; a head of any size that occurs is smaller


def refuse_other_shapes(skeleton: PreTrainedModel, stored: Shapes) -> None:
    """Compare shapes before anything is loaded.

    Args:
        skeleton: the model on the meta device.
        stored: what the checkpoint holds.

    Raises:
        CheckpointMismatchError: a tensor has another shape in the model.
        CheckpointIncompleteError: the model needs far more than the checkpoint holds.
    """
    prefix = f"{skeleton.base_model_prefix}."
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in stored.items():
        found[name] = found[name.removeprefix(prefix)] = found[prefix + name] = shape
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    wrong = [name for name, shape in expected.items() if name in found and found[name] != shape]
    if wrong:
        first = wrong[0]
        raise CheckpointMismatchError(
            f"{some(wrong)} in the checkpoint have other shapes than config.json says ({first}: {list(found[first])} "
            f"against {list(expected[first])}). Config and weights do not belong together; upload the config that the "
            "weights were trained with."
        )
    absent = [name for name in expected if name not in found]
    if sum(math.prod(expected[name]) for name in absent) > sum(map(math.prod, stored.values())) + _SLACK:
        raise CheckpointIncompleteError(
            f"{type(skeleton).__name__} with this config needs more weights than the checkpoint holds, among them "
            f"{some(absent)}. Upload the complete weights, or the config that belongs to them."
        )


def judge_missing(
    model: PreTrainedModel, missing: Sequence[str], computed: Sequence[str], task: str
) -> tuple[str, ...]:
    """Refuse missing parameters; return the poolers among them.

    Args:
        model: as loaded.
        missing: names that the checkpoint does not have.
        computed: patterns of names that the model's class does not expect in a checkpoint
            (``_keys_to_ignore_on_load_missing``).
        task: for the message.

    Raises:
        CheckpointIncompleteError: parameters have no trained values; the message names them.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    found = {id(parameter) for name, parameter in parameters.items() if name not in missing}
    absent: list[str] = []
    for name in missing:
        if name in parameters and id(parameters[name]) in found:
            continue  # tied to a parameter that was found
        known = any(re.search(pattern, name) for pattern in computed)
        if name in buffers and (known or not buffers[name].is_floating_point()):
            continue  # masks, position ids, relative position tables: functions of the config
        if name in parameters and known and _is_computed(model, name):
            continue
        absent.append(name)
    poolers = tuple(name for name in absent if _POOLER.search(name))
    lost = [name for name in absent if name not in poolers]
    if lost:
        raise _incomplete(model, lost, task)
    return poolers


def judge_unexpected(
    model: PreTrainedModel, unexpected: Sequence[str], stored: Shapes, ignored: Sequence[str]
) -> tuple[str, ...]:
    """Refuse weights inside a part that the model has; return a note for heads that it does not have.

    Args:
        model: as loaded.
        unexpected: names in the checkpoint that the model has no place for, with or without the base model's prefix.
        stored: all that the checkpoint holds.
        ignored: patterns of names that the model's class knows to be superfluous
            (``_keys_to_ignore_on_load_unexpected``).

    Raises:
        CheckpointMismatchError: the model would compute something else than what was trained.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    prefixed = bool(prefix) and any(name.startswith(prefix) for name in stored)
    root = getattr(model, model.base_model_prefix, model) if prefix else model
    unused: set[str] = set()
    for name in unexpected:
        if name.endswith("rotary_emb.inv_freq") or any(re.search(pattern, name) for pattern in ignored):
            continue
        inside = (name.startswith(prefix) or f"{prefix}{name}" in stored) if prefixed else root is model
        local = name.removeprefix(prefix)
        part = local.split(".", 1)[0]
        if (_POOLER.search(local) and not hasattr(root, part)) or not (inside or hasattr(model, part)):
            unused.add(part)
            continue
        raise CheckpointMismatchError(
            f"{type(model).__name__} has no place for {name}, which the checkpoint holds, so it would compute "
            "something else than what was trained. Config and weights do not belong together, or a newer release "
            "saved them."
        )
    return (f"Weights that the task does not use were left out: {', '.join(sorted(unused))}.",) if unused else ()


def refuse_new_names(missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """For checkpoints of transformers 5: weights under names that 4.57 does not have, where it misses others.

    Raises:
        CheckpointTooNewError: names the first of both.
    """
    if missing and unexpected:
        raise CheckpointTooNewError(
            "The checkpoint was saved by transformers 5, and some of its weights have names or a layout that "
            f"transformers 4.57 does not know ({some(sorted(unexpected), 2)}, where it looks for "
            f"{some(sorted(missing), 2)}). Save the model with transformers 4.57, or wait for an Optimum release that "
            "supports transformers 5."
        )


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _incomplete(model: PreTrainedModel, lost: Sequence[str], task: str) -> CheckpointIncompleteError:
    prefix = model.base_model_prefix
    head_only = bool(prefix) and hasattr(model, prefix) and not any(name.startswith(f"{prefix}.") for name in lost)
    advice = (
        f"The checkpoint has no trained head for the task {task!r}; choose a task that it was trained for."
        if head_only
        else "Upload the complete weights."
    )
    return CheckpointIncompleteError(
        f"{type(model).__name__} needs weights that the checkpoint does not have: {some(lost)}. "
        f"Random numbers would take their place. {advice}"
    )


def _is_computed(model: PreTrainedModel, name: str) -> bool:
    """Whether initialising twice gives the same values, as it does for sinusoidal positions and for no random ones."""
    owner, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(owner)
    values = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model._init_weights(module)
        values.append(getattr(module, leaf).detach().clone())
    return torch.equal(*values)
