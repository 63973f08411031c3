"""Text generation is checked by generating: greedy tokens of the ORTModel equal those of the PyTorch model.

The PyTorch half (:func:`reference`) runs where the model is and writes tokens to a file; the other (:func:`compare`)
runs where ONNX Runtime is: with the cache and without, one prompt alone and a padded batch. A wrong graph may still
agree on single calls: only here are the graphs called as users call them, by Optimum's own loop, with Optimum's own
empty cache, mask and positions.

PyTorch generates once: the prompt that ONNX Runtime gets alone is the row of the batch that has no padding.

Without the cache, each step computes the whole text again. For a large graph that costs more than everything else
together, so there the padded batch is read rather than written (:func:`follow`): one call over the text that PyTorch
generated, whose logits at each position must be those from which PyTorch chose the token. That they follow from the
tokens before alone is what generating would show as well.

Ties: where PyTorch's best and second best token are closer than twice the tolerance, either may win. A row is
compared up to a difference at such a step; a difference anywhere else is a failure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from modelexport.contract.errors import ConfigInvalidError, OptimumLoadFailedError, ParityFailedError
from modelexport.contract.manifest import ParityResult
from modelexport.parity import decoder_cases, numbers
from modelexport.parity.cases import Preprocessors, make_cases, positions, seed
from modelexport.parity.numbers import Distance, Tolerance
from modelexport.plan import ENCODER, GraphPlan

STEPS = 20
"""Tokens generated per prompt."""

_LENGTH = 12  # tokens of the longest prompt


@dataclass(frozen=True)
class Prompt:
    """What one call of ``generate`` got, and what it made of it.

    Attributes:
        name: what is special about it.
        inputs: keyword arguments of ``generate``; tensors ``[batch, ...]``.
        start: ids that the decoder had read before the first step, int64 ``[batch, length]``.
        tokens: generated token ids, int64 ``[batch, steps]``; the prompt left out.
        margins: by how much the best token beat the second best, float64 ``[batch, steps]``.
        logits: of every step, float32 ``[batch, steps, vocabulary]``.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    start: np.ndarray
    tokens: np.ndarray
    margins: np.ndarray
    logits: np.ndarray

    def alone(self) -> "Prompt | None":
        """The first row without padding, as a prompt of its own; None where every row has some.

        A model in eval mode computes each row by itself, so what PyTorch makes of the row is known already.
        """
        mask = self.inputs.get("attention_mask", np.ones((len(self.tokens), 1)))
        full = np.flatnonzero(mask.reshape(len(mask), -1).all(axis=1))
        if not full.size:
            return None
        row = slice(full[0], full[0] + 1)
        inputs = {name: value[row] for name, value in self.inputs.items()}
        return Prompt("generate", inputs, self.start[row], self.tokens[row], self.margins[row], self.logits[row])


def references(plans: Sequence[GraphPlan], preprocessors: Preprocessors, model: PreTrainedModel) -> Iterator[Prompt]:
    """What the PyTorch model generates from every prompt: one alone, and a padded batch.

    Args:
        plans: graphs of one model that generates text; an encoder generates from what it is compared on.

    Raises:
        ConfigInvalidError: PyTorch itself cannot generate.
    """
    if plans[0].name == ENCODER:
        cases = make_cases(plans[0], preprocessors, ())
        batch = reference(plans, model, f"generate, {cases[-1].name}", cases[-1].inputs)
        yield batch.alone() or reference(plans, model, "generate", cases[0].inputs)
    else:
        batch = reference(plans, model, "generate, padded batch", _padded_batch(plans[0], preprocessors))
        alone = batch.alone()
        assert alone is not None, "the first row has no padding"
        yield alone
    yield batch


def _padded_batch(plan: GraphPlan, preprocessors: Preprocessors) -> dict[str, torch.Tensor]:
    """Two prompts, the shorter one padded on the left: int64 ``[2, length]`` ids and mask."""
    seed()
    length = min(_LENGTH, max(1, positions(plan) // 3))
    ids, _ = decoder_cases.token_ids(plan, preprocessors, 2, length)
    mask = torch.ones_like(ids)
    mask[1, : length // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def reference(
    plans: Sequence[GraphPlan], model: PreTrainedModel, name: str, inputs: Mapping[str, torch.Tensor]
) -> Prompt:
    """What the PyTorch model generates from one prompt, greedily, with its cache."""
    start = inputs["input_ids"].shape[1] if plans[0].name != ENCODER else 1
    steps = min(STEPS, positions(plans[-1]) - start)
    try:
        made = model.generate(**inputs, **_options(steps), use_cache=True, output_scores=True, output_logits=True)
    except (IndexError, ValueError, TypeError, RuntimeError) as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ConfigInvalidError(
            f"The PyTorch model itself cannot generate text: {type(error).__name__}: {first_line}. Correct its "
            "config.json or generation_config.json (token ids, lengths), or export it for another task."
        ) from error
    tokens = made.sequences[:, -steps:]
    best = torch.stack([scores.double().topk(2, dim=-1).values for scores in made.scores], dim=1)
    return Prompt(
        name,
        {key: value.numpy() for key, value in inputs.items()},
        made.sequences[:, :-steps].numpy(),
        tokens.numpy(),
        (best[..., 0] - best[..., 1]).nan_to_num(nan=np.inf).numpy(),
        torch.stack(made.logits, dim=1).float().numpy(),
    )


def _options(steps: int) -> dict[str, Any]:
    return {
        "do_sample": False,
        "num_beams": 1,
        "max_new_tokens": steps,
        "min_new_tokens": steps,
        "return_dict_in_generate": True,
    }


class CacheSettings:
    """Which parts of a model use their cache, as it was loaded: planning and tracing an export switch them on and
    off.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
        self._values = [(config, config.use_cache) for config in configs.values() if hasattr(config, "use_cache")]

    def restore(self) -> None:
        """Bring the model back into the state in which it was loaded."""
        for config, value in self._values:
            config.use_cache = value


def compare(
    model: Any, prompt: Prompt, graph: str, allowed: Tolerance, *, use_cache: bool
) -> tuple[ParityResult, Distance]:
    """Generate with an ORTModel and compare the tokens.

    Args:
        model: an ``ORTModelForX`` with ``generate``.
        graph: name of the ONNX file that predicts the tokens.
        allowed: how far the logits may be from PyTorch's; tokens that it thinks closer than twice that are a tie.
        use_cache: whether to generate with the KV cache.

    Returns:
        A result whose difference is the number of other tokens, and how far the first step's logits are.

    Raises:
        OptimumLoadFailedError: ``generate`` fails.
    """
    steps = prompt.tokens.shape[1]
    inputs = {name: torch.from_numpy(value) for name, value in prompt.inputs.items()}
    try:
        made = model.generate(**inputs, **_options(steps), use_cache=use_cache, output_logits=True)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        how = "with" if use_cache else "without"
        raise OptimumLoadFailedError(
            f"{type(model).__name__} loads the folder but fails to generate {how} the cache: {type(error).__name__}: "
            f"{first_line}"
        ) from error
    tokens = made.sequences[:, -steps:].numpy()
    others, compared = _differences(tokens, prompt, 2 * allowed.at(prompt.logits))
    result = ParityResult(
        graph=graph,
        output="tokens",
        case=f"{prompt.name}, {'with' if use_cache else 'without'} cache, {compared} steps",
        shapes={name: tuple(value.shape) for name, value in prompt.inputs.items()},
        max_abs=float(others),
        max_rel=others / max(prompt.tokens.size, 1),
        tolerance=0.0,
        reason="the same tokens, but where PyTorch finds two as likely",
        passed=others == 0,
    )
    return result, numbers.distance(made.logits[0].float().numpy(), prompt.logits[:, 0], allowed)


def follow(model: Any, prompt: Prompt, graph: str, allowed: Tolerance) -> ParityResult | None:
    """Let an ORTModel read the generated text in one call, without a cache.

    Returns:
        None where the numbers are not PyTorch's: only generating (:func:`compare`) shows whether the text is another.
    """
    steps = prompt.tokens.shape[1]
    inputs = {name: torch.from_numpy(value) for name, value in prompt.inputs.items()}
    text = torch.from_numpy(np.concatenate([prompt.start, prompt.tokens[:, :-1]], axis=1))
    if "input_ids" in inputs and torch.equal(inputs["input_ids"], torch.from_numpy(prompt.start)):
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(text[:, : steps - 1])], dim=1)
        inputs = {"input_ids": text, "attention_mask": mask, "position_ids": decoder_cases.position_ids(mask)}
    else:
        inputs["decoder_input_ids"] = text
    try:
        logits = model(**inputs, use_cache=False).logits[:, -steps:].float().numpy()
    except (ValueError, TypeError, RuntimeError):
        return None
    max_abs, max_rel = numbers.difference(logits, prompt.logits)
    if max_abs > allowed.at(prompt.logits):
        return None
    return ParityResult(
        graph=graph,
        output="logits",
        case=f"{prompt.name}, without cache, {steps} steps in one call",
        shapes={name: tuple(value.shape) for name, value in inputs.items()},
        max_abs=max_abs,
        max_rel=max_rel,
        tolerance=allowed.at(prompt.logits),
        reason=allowed.reason,
        passed=True,
    )


def require(results: Sequence[ParityResult]) -> None:
    """The gate.

    Raises:
        ParityFailedError: other tokens than PyTorch's were generated.
    """
    for result in results:
        if not result.passed:
            raise ParityFailedError(
                f"ONNX Runtime and PyTorch generate different texts: {result.max_abs:.0f} other tokens in the case "
                f"{result.case!r}, although single calls of the graphs agree. Nothing was published. Please "
                f"report the model."
            )


def _differences(tokens: np.ndarray, prompt: Prompt, tie: float) -> tuple[int, int]:
    """Tokens that differ, ties left out, and the steps that were compared in the row that was compared the least."""
    others, compared = 0, prompt.tokens.shape[1]
    if tokens.shape != prompt.tokens.shape:
        return prompt.tokens.size, 0
    for got, want, margins in zip(tokens, prompt.tokens, prompt.margins, strict=True):
        different = np.flatnonzero(got != want)
        if not different.size:
            continue
        if margins[different[0]] <= tie:
            compared = min(compared, int(different[0]))
        else:
            others += int(different.size)
    return others, compared


@dataclass(frozen=True)
class PromptFile:
    """Prompts on disk, on their way to the other process."""

    path: Path

    def save(self, made: Iterable[Prompt]) -> None:
        """Write all prompts."""
        arrays: dict[str, np.ndarray] = {}
        for number, prompt in enumerate(made):
            arrays |= {
                f"{number}|name|": np.array(prompt.name),
                f"{number}|start|": prompt.start,
                f"{number}|tokens|": prompt.tokens,
                f"{number}|margins|": prompt.margins,
                f"{number}|logits|": prompt.logits,
                **{f"{number}|input|{name}": value for name, value in prompt.inputs.items()},
            }
        np.savez(self.path, **arrays)

    def load(self) -> Iterator[Prompt]:
        """The prompts, one after the other."""
        with np.load(self.path, allow_pickle=False) as file:
            for number in range(sum(key.endswith("|name|") for key in file.files)):
                start = f"{number}|input|"
                yield Prompt(
                    str(file[f"{number}|name|"]),
                    {key.removeprefix(start): file[key] for key in file.files if key.startswith(start)},
                    file[f"{number}|start|"],
                    file[f"{number}|tokens|"],
                    file[f"{number}|margins|"],
                    file[f"{number}|logits|"],
                )
