"""From a plan to its tagged graph: trace the module, project the calls, check that no node is left without a tag."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import onnx_ir as ir
import torch

from modelexport import graph
from modelexport.contract.errors import ExportFailedError
from modelexport.contract.events import Stage, StageName
from modelexport.dummies import dummy_inputs
from modelexport.htp.hierarchy import Hierarchy
from modelexport.htp.trace import Trace, trace
from modelexport.isolation import Emit
from modelexport.patches import empty_cache, half_attention, no_padding_token, true_cache
from modelexport.plan import Axes, GraphPlan


def trace_graph(plan: GraphPlan, hierarchy: Hierarchy, opset: int, emit: Emit) -> ir.Model:
    """The graph of ``plan``, its weights still views of the checkpoint.

    Raises:
        ExportFailedError: torch cannot express the model in ONNX, or a node would stay without a tag.
    """
    try:
        traced, axes = _trace(plan, hierarchy, opset)
    except (
        torch.onnx.errors.OnnxExporterError,
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:
        if "not enough memory" in str(error):
            raise
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise ExportFailedError(
            f"torch cannot trace {type(plan.model).__name__} to ONNX opset {opset}: {type(error).__name__}: "
            f"{first_line}. Run with --verbose for the whole story, and please report the model."
        ) from error
    emit(Stage(stage=StageName.PROJECT, detail=f"{len(traced.calls):,} module calls"))
    model = graph.build(traced, hierarchy, plan.model.state_dict(keep_vars=True), axes)
    untagged = graph.untagged(model)
    if untagged:
        raise ExportFailedError(
            f"{len(untagged)} nodes of {plan.name} belong to no module that was called ({untagged[0]}, ...). "
            "Please report the model: every node must say where it comes from."
        )
    return model


def _trace(plan: GraphPlan, hierarchy: Hierarchy, opset: int) -> tuple[Trace, Axes]:
    inputs = trace_inputs(plan)
    try:
        return _traced(plan, inputs, hierarchy, opset)
    except RuntimeError:
        if not (plan.is_causal and plan.takes_cache):
            raise
        fitted = true_cache.fit(plan, inputs)
        return _traced(plan, fitted, hierarchy, opset)


def trace_inputs(plan: GraphPlan) -> dict[str, Any]:
    """Keyword arguments to trace with: Optimum's dummy inputs, always the same."""
    torch.manual_seed(0)
    shapes = {"batch_size": limit} if (limit := no_padding_token.rows(plan)) else {}
    return plan.config.rename_ambiguous_inputs(dummy_inputs(plan, **shapes))


def _traced(plan: GraphPlan, inputs: Mapping[str, Any], hierarchy: Hierarchy, opset: int) -> tuple[Trace, Axes]:
    with ExitStack() as patches:
        patches.enter_context(plan.patched())
        if plan.model.dtype is torch.float16:
            patches.enter_context(half_attention.typed())
        if plan.is_causal and plan.takes_cache and empty_cache.needed(plan.model.config, inputs):
            patches.enter_context(empty_cache.reshaped())
        names, outputs = plan.inputs, plan.outputs
        axes = {**names, **outputs}
        traced = trace(
            plan.model,
            inputs,
            hierarchy=hierarchy,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset=opset,
        )
    return traced, axes
