"""Optimum's dummy inputs of a graph, in shapes of our choice."""

from typing import Any

from optimum.utils import DEFAULT_DUMMY_SHAPES

from modelexport.plan import GraphPlan


def dummy_inputs(plan: GraphPlan, **shapes: int) -> dict[str, Any]:
    """Keyword arguments of the module: tensors, and nested tuples of them.

    Some generators insist on every shape being given (RT-DETR's reads ``height``), so all of Optimum's defaults are,
    as by its command line.
    """
    inputs: dict[str, Any] = plan.config.generate_dummy_inputs(framework="pt", **{**DEFAULT_DUMMY_SHAPES, **shapes})
    return inputs
