"""What PyTorch says to the inputs on which the ONNX files are judged, on its way to the process that judges them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from modelexport.parity import decoder_cases, generation
from modelexport.parity.arithmetic import OtherArithmetic
from modelexport.parity.cases import Case, Preprocessors, make_cases
from modelexport.parity.generation import CacheSettings, PromptFile
from modelexport.parity.numbers import ReferenceFile, Sample, reference
from modelexport.plan import DECODER, DECODER_MERGED, ENCODER, GraphPlan

_GENERATES = ("text-generation", "text2text-generation", "automatic-speech-recognition", "image-to-text")


@dataclass(frozen=True)
class Interface:
    """Names of the inputs and outputs of a graph, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class References:
    """Files of cases and what PyTorch returned on them.

    Attributes:
        calls: single calls, by name of the ONNX file.
        prompts: generated texts, for models that generate; else None.
        dtype: in which PyTorch computed.
        other: dtype in which it computed some cases once more.
    """

    calls: Mapping[str, ReferenceFile]
    prompts: PromptFile | None = None
    dtype: str = "float32"
    other: str = ""


def make(
    plans: Sequence[GraphPlan],
    interfaces: Mapping[str, Interface],
    published: Mapping[str, Mapping[str, tuple[object, ...]]],
    preprocessors: Preprocessors,
    scratch: Path,
    other: OtherArithmetic | None = None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, ReferenceFile]:
    """Run the PyTorch model on every case.

    Args:
        plans: the graphs as traced.
        interfaces: of the traced graphs, by name.
        published: of the graphs as written, by stem of the file: inputs with their shapes.
        other: the model in another dtype, for the last case of every graph.
        between: called before every case.

    Returns:
        The cases and what PyTorch returned on them, by name of the ONNX file.
    """
    calls: dict[str, list[Sample]] = {stem: [] for stem in published}
    for plan, made in cases(plans, interfaces, preprocessors):
        stem = plan.name if plan.name in published else DECODER_MERGED
        for case in made:
            between()
            fed = case.feeds if stem == plan.name else decoder_cases.merged_feeds(case, published[stem], plan)
            names = interfaces[plan.name].outputs
            also = other.outputs(plan.name, case, names) if other is not None and case is made[-1] else {}
            calls[stem].append(Sample(case.name, fed, reference(plan, case, names), also))
    files = {}
    for stem, samples in calls.items():
        files[f"{stem}.onnx"] = ReferenceFile(scratch / f"{stem}.npz")
        files[f"{stem}.onnx"].save(samples)
    return files


def generates(plans: Sequence[GraphPlan], task: str) -> bool:
    """Whether the model is made to generate text."""
    return task.startswith(_GENERATES) and (plans[0].name == ENCODER or plans[0].is_causal)


def generate(
    plans: Sequence[GraphPlan],
    preprocessors: Preprocessors,
    model: PreTrainedModel,
    settings: CacheSettings,
    task: str,
    scratch: Path,
) -> PromptFile | None:
    """Let the PyTorch model generate from every prompt; None for a model that is not made for that.

    Args:
        settings: of the model as it was loaded; it is brought back to that state.

    Raises:
        ConfigInvalidError: PyTorch itself cannot generate.
    """
    if not generates(plans, task):
        return None
    settings.restore()
    file = PromptFile(scratch / "prompts.npz")
    file.save(generation.references(plans, preprocessors, model))
    return file


def cases(
    plans: Sequence[GraphPlan], interfaces: Mapping[str, Interface], preprocessors: Preprocessors
) -> Iterator[tuple[GraphPlan, Sequence[Case]]]:
    """Every graph with the cases on which it is judged, one graph after the other.

    Args:
        plans: the graphs as traced.
        interfaces: of the traced graphs, by name.
        preprocessors: of the model.
    """
    by_name = {plan.name: plan for plan in plans}
    encoder = by_name.get(ENCODER)
    encoded = make_cases(encoder, preprocessors, interfaces[ENCODER].inputs) if encoder else []
    for plan in plans:
        yield plan, _cases(plan, by_name, encoded, preprocessors, interfaces[plan.name])


def _cases(
    plan: GraphPlan,
    plans: Mapping[str, GraphPlan],
    encoded: Sequence[Case],
    preprocessors: Preprocessors,
    interface: Interface,
) -> Sequence[Case]:
    if plan.name == ENCODER:
        return encoded
    if plan.is_decoder_of_pair:
        return decoder_cases.seq2seq_cases(plan, plans[DECODER], plans[ENCODER], encoded, interface.inputs)
    if plan.is_causal:
        return decoder_cases.causal_cases(plan, preprocessors, interface.inputs)
    return _of_different_shapes(make_cases(plan, preprocessors, interface.inputs))


def _of_different_shapes(made: Sequence[Case]) -> Sequence[Case]:
    """``made`` without cases that have the shapes of an earlier one: images come out of a processor in one size."""
    by_shapes: dict[object, Case] = {}
    for case in made:
        by_shapes.setdefault(tuple((name, value.shape) for name, value in case.feeds.items()), case)
    return tuple(by_shapes.values())
