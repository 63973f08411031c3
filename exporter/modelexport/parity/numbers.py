"""The gate: the same inputs through PyTorch and through ONNX Runtime.

The PyTorch side (:func:`reference`) runs where the model is, the other (:func:`compare`) in a process that never held
it. Between them go plain arrays on disk (:class:`ReferenceFile`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from modelexport.contract.errors import ExportFailedError, ParityFailedError
from modelexport.contract.manifest import ParityResult
from modelexport.parity import pytorch
from modelexport.parity.cases import Case
from modelexport.plan import GraphPlan

TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2}
"""Largest absolute difference allowed by default, by dtype of the graph.

float32: what reassociated sums over a few thousand terms of order 1 differ by at most (24-bit significand, 1.2e-7
relative per operation); Optimum's own default is 1e-5 to 1e-3, by architecture. float16 has 11 bits of significand.
"""

_UNITS = 4  # in the last place of float16, at the largest value of an output: what a long sum may lose


@dataclass(frozen=True)
class Tolerance:
    """How far ONNX Runtime may be from PyTorch.

    Attributes:
        absolute: largest absolute difference allowed.
        relative: the same as a share of the output's largest value; the larger of the two counts.
        reason: why so much and no more, for the manifest.
    """

    absolute: float
    relative: float = 0.0
    reason: str = ""

    def at(self, want: np.ndarray) -> float:
        """Largest absolute difference allowed from the output ``want``."""
        if not self.relative:
            return self.absolute
        finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
        return max(self.absolute, self.relative * float(finite.max(initial=0.0)))


def tolerance(dtype: str, asked: float | None) -> Tolerance:
    """The tolerance for a graph that computes in ``dtype``; ``asked`` is the operator's own, which counts alone."""
    if asked is not None:
        return Tolerance(asked, reason="asked for with --atol")
    absolute = TOLERANCE[dtype]
    if dtype == "float16":
        unit = float(np.finfo(np.float16).eps)
        reason = (
            f"float16 keeps 11 bits: {absolute:g}, or {_UNITS} units in the last place of the output's largest value"
        )
        return Tolerance(absolute, _UNITS * unit, reason)
    return Tolerance(absolute, reason=f"{dtype}: sums of a few thousand terms of order 1 in another order")


@dataclass(frozen=True)
class Sample:
    """A case on its way to ONNX Runtime.

    Attributes:
        case: its name.
        feeds: what ONNX Runtime is given, by input.
        expected: what PyTorch returned in the dtype of the graph, by output.
        also: what it returned in another dtype (:mod:`modelexport.parity.arithmetic`); empty for most cases.
    """

    case: str
    feeds: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    also: Mapping[str, np.ndarray] = field(default_factory=dict)


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
    return {name: _array(outputs[name]) for name in output_names}


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A copy; numpy has no bfloat16, so that becomes float32, exactly."""
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), copy=True)


def run(session: Session, graph: str, sample: Sample) -> dict[str, np.ndarray]:
    """What ONNX Runtime returns on a case, by output.

    Raises:
        ParityFailedError: it cannot run the case at all.
    """
    names = list(sample.expected)
    try:
        return dict(zip(names, session.run(names, sample.feeds), strict=True))
    except Exception as error:
        given = ", ".join(f"{name} {list(value.shape)}" for name, value in sample.feeds.items())
        raise ParityFailedError(
            f"ONNX Runtime cannot run {graph} on the case {sample.case!r} with {given}, which PyTorch computes: "
            f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}. Probably the graph holds "
            "on to a length that the traced input had. Nothing was published. Please report the model."
        ) from error


def compare(
    actual: Mapping[str, np.ndarray],
    graph: str,
    sample: Sample,
    allowed: Tolerance,
    dtype: str = "float32",
    other: str = "",
) -> list[ParityResult]:
    """Compare every output of one case.

    Args:
        actual: what ONNX Runtime returned, by output.
        allowed: distance from what PyTorch returned in the dtype of the graph. From what it returned in the other one,
            as much more as PyTorch is from itself there: that is no error of the graph's.
        dtype: of the graph.
        other: the other dtype.

    Returns:
        One result per output and dtype of the reference; see :func:`require` for what to do with it.
    """
    results = []
    for name, want in sample.expected.items():
        got = actual[name]
        results.append(_result(graph, name, sample, got, want, allowed, dtype))
        if name in sample.also:
            apart, _ = difference(want, sample.also[name])
            more = Tolerance(
                allowed.at(want) + apart,
                reason=f"PyTorch's own {dtype} and {other} are {apart:.3g} apart here; then as for {dtype}",
            )
            results.append(_result(graph, name, sample, got, sample.also[name], more, other))
    return results


def _result(
    graph: str, output: str, sample: Sample, got: np.ndarray, want: np.ndarray, allowed: Tolerance, dtype: str
) -> ParityResult:
    max_abs, max_rel = difference(got, want)
    return ParityResult(
        graph=graph,
        output=output,
        case=sample.case,
        shapes={name: tuple(value.shape) for name, value in sample.feeds.items()},
        arithmetic=dtype,
        max_abs=max_abs,
        max_rel=max_rel,
        tolerance=allowed.at(want),
        reason=allowed.reason,
        passed=max_abs <= allowed.at(want),
    )


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


@dataclass(frozen=True)
class Distance:
    """How far some numbers are from PyTorch's, and how far they may be; ordered by the share of the second."""

    measured: float = 0.0
    allowed: float = 1.0

    @property
    def is_beyond(self) -> bool:
        """Whether it is too far."""
        return self.measured > self.allowed

    def __lt__(self, other: "Distance") -> bool:
        return self.measured * other.allowed < other.measured * self.allowed


def distance(got: np.ndarray, want: np.ndarray, allowed: Tolerance) -> Distance:
    """The largest absolute difference beside what is allowed."""
    return Distance(difference(got, want)[0], allowed.at(want))


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

    def save(self, samples: Iterable[Sample]) -> None:
        """Write all samples."""
        arrays: dict[str, np.ndarray] = {}
        for number, sample in enumerate(samples):
            arrays[f"{number}|name|"] = np.array(sample.case)
            for kind, values in (("feed", sample.feeds), ("want", sample.expected), ("also", sample.also)):
                arrays |= {f"{number}|{kind}|{name}": value for name, value in values.items()}
        np.savez(self.path, **arrays)

    def load(self) -> Iterator[Sample]:
        """The samples, one after the other."""
        with np.load(self.path, allow_pickle=False) as file:
            count = len({key.split("|", 1)[0] for key in file.files})
            for number in range(count):
                parts: dict[str, dict[str, np.ndarray]] = {"feed": {}, "want": {}, "also": {}}
                for key in file.files:
                    prefix, kind, name = key.split("|", 2)
                    if prefix == str(number) and kind in parts:
                        parts[kind][name] = file[key]
                yield Sample(str(file[f"{number}|name|"]), parts["feed"], parts["want"], parts["also"])
