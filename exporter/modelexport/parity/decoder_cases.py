"""The inputs on which a graph with a KV cache is compared.

The cache is no dummy: the model itself has filled it with the tokens before. So its values are of the size that they
have in use, and a case is exactly one step of generation: the first call on a prompt, a next token, or several at
once (which assisted generation does), at several past lengths, alone and in a padded batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelexport.parity import pytorch
from modelexport.parity.cases import LONG, Case, Preprocessors, feeds, positions, seed
from modelexport.plan import GraphPlan


@dataclass(frozen=True)
class Step:
    """One call of a decoder: ``new`` tokens after ``past`` others, for ``batch`` rows; padded: rows differ in
    length.
    """

    name: str
    batch: int
    past: int
    new: int
    padded: bool = False


FIRST_CALLS = (Step("first call", 1, 0, 5), Step("first call, padded batch", 3, 0, 23, padded=True))
NEXT_CALLS = (
    Step("next token", 1, 44, 1),
    Step("next token, padded batch", 3, 22, 1, padded=True),
    Step("next tokens", 2, 9, 4),
)


def causal_cases(plan: GraphPlan, preprocessors: Preprocessors, onnx_inputs: Sequence[str]) -> list[Case]:
    """The cases of a decoder-only graph; one that takes no cache gets the first calls only."""
    steps = (*FIRST_CALLS, *NEXT_CALLS) if plan.takes_cache else (*FIRST_CALLS, Step("long prompt", 1, 0, 45))
    return [_causal(plan, preprocessors, onnx_inputs, _shorten(step, positions(plan))) for step in steps]


def _shorten(step: Step, limit: int) -> Step:
    """``step`` within a position table of ``limit`` tokens."""
    new = min(step.new, max(1, limit // 2))
    return Step(step.name, step.batch, min(step.past, limit - new), new, step.padded)


def _causal(plan: GraphPlan, preprocessors: Preprocessors, onnx_inputs: Sequence[str], step: Step) -> Case:
    seed()
    length = step.past + step.new
    ids, source = token_ids(plan, preprocessors, step.batch, length)
    mask = torch.ones_like(ids)
    if step.padded:
        for row in range(1, step.batch):
            mask[row, : min(3 * row, length - 1)] = 0
    places = position_ids(mask)
    inputs: dict[str, Any] = {"input_ids": ids[:, step.past :], "attention_mask": mask}
    if "position_ids" in plan.inputs:
        inputs["position_ids"] = places[:, step.past :]
    if plan.takes_cache:
        before = {"input_ids": ids[:, : step.past or 1], "attention_mask": mask[:, : step.past or 1]}
        if "position_ids" in plan.inputs:
            before["position_ids"] = places[:, : step.past or 1]
        cache = pytorch.legacy(plan, pytorch.call(plan, before, logits=1))
        if not step.past:
            cache = tuple(tuple(tensor[:, :, :0] for tensor in layer) for layer in cache)
        inputs["past_key_values"] = cache
    return Case(step.name, inputs, feeds(plan.config, inputs, onnx_inputs), source)


def seq2seq_cases(
    plan: GraphPlan, decoder: GraphPlan, encoder: GraphPlan, encoder_cases: Sequence[Case], onnx_inputs: Sequence[str]
) -> list[Case]:
    """The cases of the decoder of an encoder-decoder, on what the encoder returns for its own cases.

    Args:
        plan: the decoder, with or without cache among its inputs.
        decoder: the one without.
    """
    steps = [Step("first call", 0, 0, 1), Step("several tokens", 0, 0, 7), Step("several tokens", 0, 0, 4)]
    if plan.takes_cache:
        steps = [Step("next token", 0, 1, 1), Step("next token", 0, 19, 1), Step("next token", 0, 6, 1)]
    return [
        _seq2seq(plan, decoder, encoder, case, onnx_inputs, step)
        for case, step in zip(encoder_cases, steps, strict=True)
    ]


def _seq2seq(
    plan: GraphPlan, decoder: GraphPlan, encoder: GraphPlan, encoded: Case, onnx_inputs: Sequence[str], step: Step
) -> Case:
    seed()
    hidden = pytorch.call(encoder, encoded.inputs)["last_hidden_state"]
    step = _shorten(step, positions(plan))
    ids = _random_ids(plan, hidden.shape[0], step.past + step.new)
    common: dict[str, Any] = {"encoder_outputs": (hidden,)}
    if "attention_mask" in plan.config.inputs:
        common["attention_mask"] = encoded.inputs["attention_mask"]
    inputs = {**common, "decoder_input_ids": ids[:, step.past :]}
    if "decoder_attention_mask" in plan.config.inputs:
        inputs["decoder_attention_mask"] = torch.ones_like(ids)
    if plan.takes_cache:
        before = {**common, "decoder_input_ids": ids[:, : step.past]}
        inputs["past_key_values"] = pytorch.legacy(plan, pytorch.call(decoder, before, logits=1))
    name = f"{step.name}; encoder: {encoded.name}"
    return Case(name, inputs, feeds(plan.config, inputs, onnx_inputs), encoded.source)


def token_ids(
    plan: GraphPlan, preprocessors: Preprocessors, batch: int, length: int
) -> tuple[torch.Tensor, frozenset[str]]:
    """Token ids ``[batch, length]``: of text where there is a tokenizer that fits the model, else random ones."""
    vocabulary = _vocabulary(plan)
    if preprocessors.tokenizer is not None:
        encoded = preprocessors.tokenizer(" ".join([LONG] * (1 + length // 40)), truncation=False)["input_ids"]
        rows = [encoded[start : start + length] for start in range(batch)]
        if all(len(row) == length for row in rows) and max(max(row) for row in rows) < vocabulary:
            return torch.tensor(rows), frozenset({"input_ids"})
    return _random_ids(plan, batch, length), frozenset()


def _random_ids(plan: GraphPlan, batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, _vocabulary(plan), (batch, length))


def _vocabulary(plan: GraphPlan) -> int:
    config = plan.model.config
    for part in (*(getattr(config, name, None) for name in ("decoder", "text_config")), config):
        size = getattr(part, "vocab_size", None)
        if isinstance(size, int):
            return size
    return 2


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """Positions ``[batch, length]`` as generation counts them: padding does not count, and is given 1."""
    places = mask.long().cumsum(-1) - 1
    return places.masked_fill(mask == 0, 1)


def merged_feeds(case: Case, onnx_inputs: Mapping[str, Any], plan: GraphPlan) -> dict[str, Any]:
    """Feeds of ``case`` for the merged decoder, which wants all inputs of both branches.

    Args:
        onnx_inputs: inputs of the merged graph by name, with their declared shapes.
    """
    values: dict[str, Any] = dict(feeds(plan.config, case.inputs, list(onnx_inputs)))
    batch = case.inputs["decoder_input_ids"].shape[0]
    for name, shape in onnx_inputs.items():
        if name == "use_cache_branch":
            values[name] = torch.tensor([plan.takes_cache]).numpy()
        elif name not in values:
            sizes = [dim if isinstance(dim, int) else 0 for dim in shape]
            values[name] = torch.zeros([batch, *sizes[1:]], dtype=plan.model.dtype).numpy()
    return values
