"""Which task a checkpoint is exported for, and which classes belong to it.

Everything is looked up in Optimum's TasksManager; there is no table of ours.
"""

import difflib
from collections.abc import Mapping
from typing import Any

import optimum.exporters.onnx.model_configs
import optimum.onnxruntime
import transformers
from optimum.exporters.tasks import TasksManager

from modelexport import limits
from modelexport.contract.architectures import unsupported
from modelexport.contract.errors import TaskUnknownError, UnsupportedArchitectureError

WITH_PAST = "-with-past"


def resolve(
    model_type: str,
    architectures: tuple[str, ...],
    *,
    requested: str | None,
    pipeline_tag: str | None,
    custom_classes: tuple[str, ...] = (),
) -> str:
    """The Optimum task to export for.

    In this order: what the operator asked for; the head that the checkpoint's own architecture has; the pipeline tag of
    the model card. A generative task takes its ``-with-past`` form (KV cache) where Optimum has one, unless it was
    asked for by name, as ``optimum-cli`` does.

    Args:
        requested: an Optimum task or one of its synonyms (``sentiment-analysis``); None: find it.
        pipeline_tag: from the model card; None: none.
        custom_classes: Auto classes that code of the repo defines the model for.

    Raises:
        TaskUnknownError: no such task, or none could be found.
        UnsupportedArchitectureError: Optimum cannot export this model type, or not for this task.
    """
    supported = supported_tasks(model_type)
    if requested is not None:
        task = TasksManager.map_from_synonym(requested)
        _require_known(requested, task.removesuffix(WITH_PAST))
    else:
        found = (
            _of_auto_classes(custom_classes, supported)
            or _of_architectures(architectures, supported)
            or _of_pipeline_tag(pipeline_tag)
        )
        if found is None:
            raise TaskUnknownError(
                f"The task of this model could not be found: architectures {list(architectures)}, pipeline tag "
                f"{pipeline_tag!r}. Name it with --task; Optimum exports {model_type} for: "
                f"{', '.join(sorted(supported))}."
            )
        task = found
        if f"{task}{WITH_PAST}" in supported:
            task += WITH_PAST
    if task not in supported:
        raise UnsupportedArchitectureError(
            f"Optimum cannot export {model_type} models for the task {task!r}. It can for: "
            f"{', '.join(sorted(supported))}. Choose one of these with --task."
        )
    limits.require_runnable(model_type, task)
    return task


def supported_tasks(model_type: str) -> Mapping[str, Any]:
    """The tasks that Optimum's ONNX exporter has a config for.

    Raises:
        UnsupportedArchitectureError: it has none for this model type.
    """
    try:
        return TasksManager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
    except KeyError:
        raise unsupported(model_type) from None


def ort_model_class(task: str, architectures: tuple[str, ...], custom_classes: tuple[str, ...] = ()) -> type:
    """The ``ORTModelForX`` with which a user loads this task.

    It is the one whose ``auto_model_class`` is the auto class of the task. Where a task has several auto classes
    (speech recognition: CTC and encoder-decoder), the one that knows the checkpoint's architecture. Where Optimum has
    no class for the task (object detection, depth estimation), it offers ``ORTModelForCustomTasks``, which passes any
    inputs to one graph and returns all of its outputs.

    Args:
        custom_classes: Auto classes that code of the repo defines the model for.
    """
    names = auto_classes(task)
    if len(names) > 1:
        names = tuple(name for name in names if name in custom_classes or _knows(name, architectures)) or names
    classes = [
        getattr(optimum.onnxruntime, name) for name in dir(optimum.onnxruntime) if name.startswith("ORTModelFor")
    ]
    for name in names:
        for candidate in classes:
            own = vars(candidate).get("auto_model_class")  # ORTModelForCustomTasks inherits its
            if getattr(own, "__name__", None) == name:
                return candidate
    return optimum.onnxruntime.ORTModelForCustomTasks


def auto_classes(task: str) -> tuple[str, ...]:
    """The Auto classes whose models have the head of a task; none for a task that there is not."""
    loaders = TasksManager._TRANSFORMERS_TASKS_TO_MODEL_LOADERS.get(task.removesuffix(WITH_PAST), ())
    return (loaders,) if isinstance(loaders, str) else tuple(loaders)


def _knows(auto_class: str, architectures: tuple[str, ...]) -> bool:
    """Whether one of the architectures belongs to ``auto_class``; by name, so that no model's code is imported."""
    mapping = getattr(getattr(transformers, auto_class, None), "_model_mapping", None)
    entries = mapping._model_mapping.values() if mapping is not None else ()
    known = {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
    return bool(known.intersection(architectures))


def _require_known(requested: str, task: str) -> None:
    known = sorted(TasksManager.get_all_tasks())
    if task not in known:
        close = difflib.get_close_matches(task, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise TaskUnknownError(f"{requested!r} is not a task.{hint} The tasks are: {', '.join(known)}.")


def _of_auto_classes(names: tuple[str, ...], supported: Mapping[str, Any]) -> str | None:
    """The first task that Optimum supports and that has one of these Auto classes."""
    for name in names:
        for task in TasksManager._TRANSFORMERS_TASKS_TO_MODEL_LOADERS:
            if task in supported and name in auto_classes(task):
                return str(task)
    return None


def _of_architectures(architectures: tuple[str, ...], supported: Mapping[str, Any]) -> str | None:
    """The task of the first architecture that has one; of several, one that Optimum supports.

    ``infer_task_from_model`` names the first auto class that lists the architecture, which for some is a task that
    Optimum does not export (BartForConditionalGeneration: ``fill-mask``).
    """
    for name in architectures:
        model_class = getattr(transformers, name, None)
        if model_class is None:
            continue
        try:
            found = [str(TasksManager.infer_task_from_model(model_class))]
        except ValueError:  # a class of no task (BertForPreTraining, say)
            continue
        found += [
            task
            for task in TasksManager._TRANSFORMERS_TASKS_TO_MODEL_LOADERS
            if any(_knows(loader, (name,)) for loader in auto_classes(task))
        ]
        return next((task for task in found if task in supported), found[0])
    return None


def _of_pipeline_tag(pipeline_tag: str | None) -> str | None:
    if pipeline_tag is None:
        return None
    task = str(TasksManager.map_from_synonym(pipeline_tag))
    return task if task in TasksManager.get_all_tasks() else None
