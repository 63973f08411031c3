"""What Optimum can export and nobody can use: refused with the reason, before any weights are read.

Each entry is a fact about optimum-onnx 0.1.0 with transformers 4.57; a later release may lift it.
"""

from collections.abc import Mapping

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
