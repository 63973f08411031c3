"""The gate: the same inputs through PyTorch and through ONNX Runtime.

The PyTorch side (:func:`reference`) runs where the model is, the other (:func:`compare`) in a process that never held
it. Between them go plain arrays on disk (:class:`ReferenceFile`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from modelexport.contract.errors import ExportFailedError, ParityFailedError
from modelexport.contract.manifest import ParityResult
from modelexport.parity import pytorch
from modelexport.parity.cases import Case
from modelexport.plan import GraphPlan

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest absolute difference allowed by default, by dtype of the weights.

float32: what reassociated sums over a few thousand terms of order 1 differ by at most (24-bit significand, 1.2e-7
relative per operation); Optimum's own default is 1e-5 to 1e-3, by architecture. float16 has 11 bits of significand,
bfloat16 8.
"""


class Session(Protocol):
    """What we need of :class:`onnxruntime.InferenceSession`."""

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...


def reference(plan: GraphPlan, case: Case, output_names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the PyTorch model returns on ``case``, by ONNX output name.

    The model is the *unpatched* one wherever it returns the graph's outputs by itself; only where Optimum's patches
    define the outputs does it run patched.
    """
    outputs = pytorch.by_onnx_name(plan, pytorch.call(plan, case.inputs))
    if not set(output_names) <= outputs.keys():
        with plan.patched():
            outputs = pytorch.by_onnx_name(plan, pytorch.call(plan, case.inputs))
    missing = set(output_names) - outputs.keys()
    if missing:
        raise ExportFailedError(
            f"{type(plan.model).__name__} returned no {', '.join(sorted(missing))}, so there is nothing to compare "
            f"the graph {plan.name} with. This is a disagreement between Optimum's export config and transformers; "
            "please report it."
        )
    return {name: np.array(outputs[name].numpy(), copy=True) for name in output_names}


def compare(
    session: Session,
    graph: str,
    case: str,
    feeds: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    atol: float,
) -> list[ParityResult]:
    """Run one case in ONNX Runtime and compare every output.

    Returns:
        One result per output; see :func:`require` for what to do with it.

    Raises:
        ParityFailedError: ONNX Runtime cannot run the case at all.
    """
    try:
        actual = session.run(list(expected), feeds)
    except Exception as error:
        given = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
        raise ParityFailedError(
            f"ONNX Runtime cannot run {graph} on the case {case!r} with {given}, which PyTorch computes: "
            f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}. Probably the graph holds "
            "on to a length that the traced input had. Nothing was published. Please report the model."
        ) from error
    shapes = {name: tuple(value.shape) for name, value in feeds.items()}
    results = []
    for (name, want), got in zip(expected.items(), actual, strict=True):
        max_abs, max_rel = difference(got, want)
        results.append(
            ParityResult(
                graph=graph,
                output=name,
                case=case,
                shapes=shapes,
                max_abs=max_abs,
                max_rel=max_rel,
                tolerance=atol,
                passed=max_abs <= atol,
            )
        )
    return results


def difference(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and that divided by the largest absolute reference value.

    Equal infinities and equal NaNs count as equal (masked logits), anything else that is not finite as infinitely far
    off, and so does another shape.
    """
    if got.shape != want.shape:
        return float("inf"), float("inf")
    if want.size == 0:
        return 0.0, 0.0
    wide = np.result_type(got, want, np.float32)  # float64 for integers
    got, want = got.astype(wide, copy=False), want.astype(wide, copy=False)
    with np.errstate(invalid="ignore"):
        delta = np.abs(got - want)
    delta[(got == want) | (np.isnan(got) & np.isnan(want))] = 0.0
    delta[~np.isfinite(delta)] = np.inf
    finite = np.abs(want[np.isfinite(want)])
    if not finite.size:  # agreeing on nothing but NaN proves nothing
        return float("inf"), float("inf")
    scale = float(finite.max())
    worst = float(delta.max())
    return worst, worst / scale if scale else worst


def require(results: Sequence[ParityResult]) -> None:
    """The gate.

    Raises:
        ParityFailedError: names the worst failure: graph, output, case, shapes and numbers.
    """
    failed = [result for result in results if not result.passed]
    if not failed:
        return
    worst = max(failed, key=lambda result: result.max_abs)
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in worst.shapes.items())
    raise ParityFailedError(
        f"ONNX Runtime and PyTorch disagree: output {worst.output!r} of {worst.graph} differs by {worst.max_abs:.3g} "
        f"(relative {worst.max_rel:.3g}) on the case {worst.case!r} with {shapes}; allowed is {worst.tolerance:.3g}. "
        f"{len(failed)} of {len(results)} comparisons failed. Nothing was published. {_advice(worst)}"
    )


def _advice(worst: ParityResult) -> str:
    if not np.isfinite(worst.max_abs):
        return "One side is not finite or has another shape: look for NaN in the weights, or please report the model."
    return "If this precision is enough for you, raise --atol; otherwise please report the model."


@dataclass(frozen=True)
class ReferenceFile:
    """Cases and reference outputs on disk, so that they cross to another process without passing through a pipe."""

    path: Path

    def save(self, cases: Sequence[tuple[str, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> None:
        """Write (case name, feeds, expected outputs) triples."""
        arrays: dict[str, np.ndarray] = {}
        for number, (name, feeds, expected) in enumerate(cases):
            arrays[f"{number}|name|"] = np.array(name)
            arrays.update({f"{number}|feed|{key}": value for key, value in feeds.items()})
            arrays.update({f"{number}|want|{key}": value for key, value in expected.items()})
        np.savez(self.path, **arrays)

    def load(self) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """The triples, one after the other."""
        with np.load(self.path, allow_pickle=False) as file:
            count = len({key.split("|", 1)[0] for key in file.files})
            for number in range(count):
                parts: dict[str, dict[str, np.ndarray]] = {"feed": {}, "want": {}}
                for key in file.files:
                    prefix, kind, name = key.split("|", 2)
                    if prefix == str(number) and kind in parts:
                        parts[kind][name] = file[key]
                yield str(file[f"{number}|name|"]), parts["feed"], parts["want"]
