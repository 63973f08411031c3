"""The part of an export that holds the ONNX model: parity against the reference outputs, and the load with Optimum.

Runs in a process of its own that never held the PyTorch model (:mod:`modelexport.isolation`). The ONNX files are opened
once: by Optimum, whose sessions the parity runs use too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForCustomTasks

from modelexport import optimum_check
from modelexport.contract.errors import OptimumLoadFailedError
from modelexport.contract.events import Progress, Stage, StageName
from modelexport.contract.manifest import OptimumCheck, ParityResult
from modelexport.isolation import Emit
from modelexport.parity import generation, numbers
from modelexport.parity.generation import PromptFile
from modelexport.parity.numbers import Distance, Sample, Tolerance
from modelexport.parity.references import References
from modelexport.parity.session import session_options

_LARGE = 200_000_000
"""Bytes of graphs, above which the padded batch is not generated without the cache, but read
(:func:`modelexport.parity.generation.follow`)."""


@dataclass(frozen=True)
class Checked:
    """Every comparison, all of them passed, what Optimum loaded, and what a user of Optimum has to know."""

    parity: tuple[ParityResult, ...]
    optimum: OptimumCheck
    notes: tuple[str, ...] = ()


def check(folder: Path, references: References, model_class: type, allowed: Tolerance, emit: Emit) -> Checked:
    """Compare every graph in ``folder`` with its reference outputs, through Optimum and below it.

    Args:
        model_class: the ``ORTModelForX`` of the task.
        allowed: how far the numbers may be from PyTorch's.

    Raises:
        OptimumLoadFailedError: Optimum cannot load the folder, or cannot run what it loaded.
        ParityFailedError: the numbers differ by more than is allowed.
    """
    optimum_check.forbid_network()
    torch.set_num_threads(1)  # it picks tokens here; the cores are ONNX Runtime's
    emit(Stage(stage=StageName.CHECK, detail=model_class.__name__))
    model, notes, answered, worst = _load(folder, references, model_class, allowed)
    sessions = optimum_check.sessions(model)
    results: list[ParityResult] = []
    for file, references_of_file in references.calls.items():
        session = sessions.get(Path(file).stem) or _session(folder / file)
        for number, sample in enumerate(references_of_file.load()):
            known = number == 0 and len(references.calls) == 1 and sample.expected.keys() <= answered.keys()
            # what is known was answered by the same session, through Optimum
            actual = answered if known else numbers.run(session, file, sample)
            results += numbers.compare(actual, file, sample, allowed, references.dtype, references.other)
            emit(Progress(stage=StageName.CHECK, done=number + 1, total=len(results), unit="cases"))
    numbers.require(results)
    if references.prompts is not None:
        generated, worst = _generate(model, references.prompts, list(references.calls)[-1], allowed)
        results += generated
        generation.require(generated)
    custom = isinstance(model, ORTModelForCustomTasks)
    name = ORTModelForCustomTasks.__name__ if custom else model_class.__name__  # some load a subclass of their own
    if worst.is_beyond:
        raise OptimumLoadFailedError(
            f"{name} runs the graph but returns other numbers than PyTorch: they differ by {worst.measured:.3g}, "
            f"allowed is {worst.allowed:.3g}."
        )
    opened = tuple(sorted(path.name for path in optimum_check.loaded_files(model)))
    return Checked(tuple(results), OptimumCheck(model_class=name, files=opened, max_abs=worst.measured), notes)


def _load(
    folder: Path, references: References, model_class: type, allowed: Tolerance
) -> tuple[Any, tuple[str, ...], Mapping[str, np.ndarray], Distance]:
    """The model in the class of the task; where that cannot call the graph, in ``ORTModelForCustomTasks``, with a note.

    And what it answered to the first case of its one graph, and how far that is from PyTorch; nothing yet for a model
    that generates, whose calls come later.

    The classes of optimum-onnx 0.1.0 pass on a fixed list of inputs and return fixed outputs: no ``bbox`` (LayoutLM),
    no ``decoder_input_ids`` (BART's features), nothing but ``last_hidden_state`` as features (CLIP).
    """
    model = optimum_check.load(folder, model_class, frozenset(references.calls))
    if hasattr(model, "generate"):
        without = f"The model has no KV cache: load it with {model_class.__name__}.from_pretrained(…, use_cache=False)."
        return model, () if model.can_use_cache else (without,), {}, Distance()
    sample = next(next(iter(references.calls.values())).load())
    try:
        return model, (), *_through_optimum(model, sample, allowed)
    except OptimumLoadFailedError:
        custom = optimum_check.load(folder, ORTModelForCustomTasks, frozenset(references.calls))
        note = (
            f"Optimum's {model_class.__name__} cannot call this graph (inputs {', '.join(sample.feeds)}; outputs "
            f"{', '.join(sample.expected)}): load it with ORTModelForCustomTasks."
        )
        return custom, (note,), *_through_optimum(custom, sample, allowed)


def _generate(model: Any, prompts: PromptFile, graph: str, allowed: Tolerance) -> tuple[list[ParityResult], Distance]:
    results, worst = [], Distance()
    large = sum(path.stat().st_size for path in optimum_check.loaded_files(model)) > _LARGE
    for number, prompt in enumerate(prompts.load()):
        for use_cache in (True, False) if model.can_use_cache else (False,):
            if large and number and model.can_use_cache and not use_cache:
                followed = generation.follow(model, prompt, graph, allowed)
                if followed is not None:
                    results.append(followed)
                    continue
            result, distance = generation.compare(model, prompt, graph, allowed, use_cache=use_cache)
            results.append(result)
            worst = max(worst, distance)
    return results, worst


def _through_optimum(model: object, sample: Sample, allowed: Tolerance) -> tuple[Mapping[str, np.ndarray], Distance]:
    outputs = optimum_check.forward(model, sample.feeds)
    shared = outputs.keys() & sample.expected.keys()
    if not shared:
        raise OptimumLoadFailedError(
            f"{type(model).__name__} returned {', '.join(outputs) or 'nothing'}, none of the graph's outputs "
            f"{', '.join(sample.expected)}. Export for another task."
        )
    return outputs, max(numbers.distance(outputs[name], sample.expected[name], allowed) for name in shared)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, sess_options=session_options(), providers=["CPUExecutionProvider"])
