"""modelexport: a local model folder goes in, a verified, Optimum-ready ``onnx/`` folder comes out.

Importing this package imports nothing heavy: the command line answers ``--help`` without torch.
"""

from typing import Any

__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """``AutoModelForONNX``, imported when it is asked for: it needs the engine."""
    if name != "AutoModelForONNX":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from modelexport.auto import AutoModelForONNX
    except ImportError as error:
        from modelexport.contract.errors import EngineMissingError

        raise EngineMissingError(
            f"AutoModelForONNX needs the engine, and {error.name} is not installed. "
            'Install it with: pip install "modelexport[engine]"'
        ) from error
    return AutoModelForONNX
