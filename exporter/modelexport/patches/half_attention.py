"""Attention in float16 with a boolean mask.

torch 2.13 turns the mask into zeros and infinities of float32, whatever the query is
(``scaled_dot_product_attention`` in ``torch/onnx/_internal/torchscript_exporter/symbolic_opset14.py``), and what
comes out mixes the types, which ONNX forbids. Here they have the type of the query. A row that sees nothing becomes
zeros, as it does in torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx._internal.torchscript_exporter._type_utils import JitScalarType
from torch.onnx._internal.torchscript_exporter.symbolic_opset14 import scaled_dot_product_attention

_OPERATOR, _SINCE = "aten::scaled_dot_product_attention", 14


@contextmanager
def typed() -> Iterator[None]:
    """While it lasts, torch exports attention so."""
    torch.onnx.register_custom_op_symbolic(_OPERATOR, _attention, _SINCE)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(_OPERATOR, _SINCE)


def _attention(g: Any, query: Any, key: Any, value: Any, mask: Any, *rest: Any) -> Any:
    half = JitScalarType.from_value(query) == JitScalarType.HALF
    if not half or mask.node().mustBeNone() or JitScalarType.from_value(mask) != JitScalarType.BOOL:
        return scaled_dot_product_attention(g, query, key, value, mask, *rest)
    zero = g.op("Constant", value_t=torch.tensor([0.0], dtype=torch.float16))
    nothing = g.op("Constant", value_t=torch.tensor([-torch.inf], dtype=torch.float16))
    typed_mask = g.op("Where", mask, zero, nothing).setType(query.type().with_sizes([None] * 4))
    attended = scaled_dot_product_attention(g, query, key, value, typed_mask, *rest)
    return g.op("Where", g.op("IsNaN", attended), zero, attended)
