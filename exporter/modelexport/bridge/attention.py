"""Which attention implementation computes what the checkpoint was trained with.

4.57 chooses torch's scaled-dot-product attention wherever a model supports it. Where logits are soft-capped (Gemma 2,
``attn_logit_softcapping``) that kernel leaves the capping out, 0.4 to 3 % of the logits; 5.x chooses the eager
implementation, which is exact. So do we, whichever release saved the checkpoint.
"""

from collections.abc import Mapping
from typing import Any


def attention_for(config: Mapping[str, Any]) -> str | None:
    """``"eager"`` where only that is exact, None where the choice of transformers is right."""
    if config.get("attn_logit_softcapping") is not None:
        return "eager"
    nested = (value for value in config.values() if isinstance(value, Mapping))
    return next((choice for part in nested if (choice := attention_for(part))), None)
