"""Per-module parity: for each module call, the value in ONNX against what the module returned in PyTorch.

:mod:`.reference` records PyTorch, :mod:`.values` reads ONNX, :mod:`.comparison` pairs the two and has the rules,
:mod:`.check` does it for a whole folder. This is how a user finds *where* two models part, and how we prove tags.
"""

from modelexport.module_parity.comparison import CallResult, ModuleParity, compare, difference

__all__ = ["CallResult", "ModuleParity", "compare", "difference"]
