"""The reference in the other arithmetic: the checkpoint's own beside the graph's, or float32 beside a graph in float16.

A checkpoint in bfloat16 is exported as float32, and the graph is held against PyTorch in float32 as closely as that
allows. But its authors ran it in bfloat16. So one case of every graph is computed in both, and the manifest says how
far the graph is from either, and how far PyTorch is from itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from modelexport.contract.errors import ExportFailedError
from modelexport.parity.cases import Case
from modelexport.parity.numbers import reference
from modelexport.plan import GraphPlan

_DTYPES = ("bfloat16", "float16", "float32")


def other_dtype(graph: str, checkpoint: str) -> str | None:
    """The other dtype to compute in; None where there is none.

    Args:
        graph: dtype that the graph computes in.
        checkpoint: dtype that the weights are stored in.
    """
    other = checkpoint if graph == "float32" else "float32"
    return other if other != graph and other in _DTYPES else None


class OtherArithmetic:
    """The model, loaded once more in another dtype.

    Attributes:
        dtype: that dtype.
        problem: why PyTorch cannot compute in it here, once that is known.
    """

    def __init__(self, dtype: str, plans: Sequence[GraphPlan]) -> None:
        self.dtype = dtype
        self.problem: str | None = None
        self._plans = {plan.name: plan for plan in plans}

    def outputs(self, graph: str, case: Case, names: Sequence[str]) -> dict[str, np.ndarray]:
        """What PyTorch returns on ``case``, its numbers rounded to the dtype; empty where it cannot compute that."""
        if self.problem is not None:
            return {}
        rounded = Case(case.name, _rounded(case.inputs, getattr(torch, self.dtype)), case.feeds, case.source)
        try:
            outputs = reference(self._plans[graph], rounded, names)
        except (RuntimeError, TypeError, ValueError, ExportFailedError) as error:
            self.problem = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
            return {}
        overflown = [name for name, value in outputs.items() if np.isnan(value).any()]
        if overflown:
            self.problem = f"{', '.join(overflown)} become NaN"
            return {}
        return outputs


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _rounded(item, dtype) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_rounded(item, dtype) for item in value)
    return value
