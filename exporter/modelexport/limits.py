"""What Optimum exports and nobody can use: refused before any weights are read. What it exports otherwise: noted.

Each entry is a fact about optimum-onnx 0.1.0 with transformers 4.57; a later release may lift it.
"""

from collections.abc import Mapping
from typing import Any

from modelexport.contract.errors import UnsupportedArchitectureError

_TASKS: Mapping[str, str] = {
    "text-to-audio": (
        "Optimum exports the parts of a speech generator but has no class that runs them, and what they compute is "
        "random by design, so no number of it could be compared with PyTorch's"
    ),
}


def require_runnable(model_type: str, task: str) -> None:
    """Refuse what would be exported in vain.

    Raises:
        UnsupportedArchitectureError: no class of stock Optimum can run the result.
    """
    reason = _TASKS.get(task)
    if reason is not None:
        raise UnsupportedArchitectureError(f"{model_type} models are not exported for {task!r}: {reason}.")


def notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user of the graph has to know about this architecture, one sentence each.

    Args:
        config: content of ``config.json``.
    """
    if config.get("model_type") in ("big_bird", "bigbird_pegasus"):
        sparse = config.get("attention_type", "block_sparse") == "block_sparse"
        block, random = config.get("block_size", 64), config.get("num_random_blocks", 3)
        limit = (5 + 2 * random) * block
        if sparse:
            note = (
                f"Block-sparse attention, which draws random blocks, is exported as full attention: up to {limit} "
                "tokens that is what the PyTorch model computes, beyond it is not."
            )
            return (note,)
    return ()
