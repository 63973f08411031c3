"""From what transformers 5 saves to what transformers 4.57 reads, without losing a value.

Optimum's ONNX stack needs transformers 4.57, and most new repos are saved by transformers 5, whose config, tokenizer
and weight names differ. 4.57 does not refuse them: it ignores what it does not know and computes something else. So
every key of such a checkpoint is known to mean the same, is translated, or ends the export with
:class:`~modelexport.contract.errors.CheckpointTooNewError`.

What stays as it is: the checkpoint. Translations are written to a scratch folder whose other entries are links.
"""

from modelexport.bridge.preparing import Prepared, prepare

__all__ = ["Prepared", "prepare"]
