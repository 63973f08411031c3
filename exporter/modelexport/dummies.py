"""Optimum's dummy inputs of a graph, in shapes of our choice."""

from typing import Any

from optimum.utils import DEFAULT_DUMMY_SHAPES

from modelexport.plan import GraphPlan


def dummy_inputs(plan: GraphPlan, **shapes: int) -> dict[str, Any]:
    """Keyword arguments of the module: tensors, and nested tuples of them.

    Some generators insist on every shape being given (RT-DETR's reads ``height``), so all of Optimum's defaults are,
    as by its command line. Whisper takes sounds of one length only, twice its ``max_source_positions``, where
    optimum-onnx 0.1.0 always makes 3000 frames.
    """
    config = plan.config._config
    if config.model_type == "whisper":
        shapes["nb_max_frames"] = 2 * config.max_source_positions
    inputs: dict[str, Any] = plan.config.generate_dummy_inputs(framework="pt", **{**DEFAULT_DUMMY_SHAPES, **shapes})
    return inputs
