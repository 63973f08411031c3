"""Trace and compare with one row where the model cannot take more.

transformers 4.57: decoders with a classifier head (Llama, MPT, GPT-2) take the last token of each row that is no
padding, and refuse batches when the config names no padding token: ``Cannot handle batch sizes > 1 if no padding
token is defined``. Optimum's dummy inputs have two rows. Traced with one row, the graph takes the last token of each
row of any batch.
"""

import inspect

from modelexport.plan import GraphPlan


def rows(plan: GraphPlan) -> int | None:
    """How many rows the PyTorch model takes at most; None: any number."""
    if plan.config.task != "text-classification" or getattr(plan.config._config, "pad_token_id", None) is not None:
        return None
    return 1 if "pad_token_id" in inspect.unwrap(type(plan.model).forward).__code__.co_names else None
