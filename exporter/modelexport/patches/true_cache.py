"""Trace with a cache of the model's own shape where Optimum's dummy has another one.

optimum-onnx 0.1.0: the dummy cache has as many heads as the config has attention heads for Phi with fewer key-value
heads, and one for Falcon's new architecture with several; the trace ends with ``Sizes of tensors must match except in
dimension 2``.
"""

from collections.abc import Mapping
from typing import Any

import torch

from modelexport.parity import pytorch
from modelexport.plan import GraphPlan


def fit(plan: GraphPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """``inputs`` with a cache as long as theirs, and of the shape that the model makes when it is called on one
    token.
    """
    one = {name: inputs[name][:, :1] for name in ("input_ids", "position_ids") if name in inputs}
    real = pytorch.legacy(plan, pytorch.call(plan, {**one, "attention_mask": torch.ones_like(one["input_ids"])}))
    cache = tuple(
        tuple(
            torch.randn(*new.shape[:2], old.shape[2], new.shape[3], dtype=old.dtype)
            for new, old in zip(*pair, strict=True)
        )
        for pair in zip(real, inputs["past_key_values"], strict=True)
    )
    return {**inputs, "past_key_values": cache}
