"""Weight names: what transformers 5 renamed and did not rename back on saving.

5.x reverts most of its renames when it saves (``core_model_loading.revert_weight_conversion``), so nearly every
checkpoint has the names that 4.57 expects. The exceptions are found by holding the names in the safetensors headers
against those of the 4.57 model, which is built without memory for its weights:

1. A part that lost or gained a module around it: all unknown names, with one prefix put before them, are exactly the
   names that are missing, with equal shapes (``CLIPVisionModel``: ``vision_model.``; ``ViTMSNForImageClassification``:
   ``vit.``).
2. Renames within a path, :data:`RENAMES`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from modelexport.bridge.section import root_class
from modelexport.checkpoint import Checkpoint

RENAMES: Mapping[str, Mapping[str, str]] = {
    "vit_mae": {r"^decoder\.decoder_encoder\.layer\.": "decoder.decoder_layers."},
    "mixtral": {r"\.mlp\.gate\.": ".block_sparse_moe.gate."},
    "data2vec-vision": {
        r"\.psp_modules\.blocks\.(\d+)\.conv\.convolution\.": r".psp_modules.\1.1.conv.",
        r"\.psp_modules\.blocks\.(\d+)\.conv\.normalization\.": r".psp_modules.\1.1.bn.",
        r"\.psp_bottleneck\.convolution\.": ".bottleneck.conv.",
        r"\.psp_bottleneck\.normalization\.": ".bottleneck.bn.",
        r"\.(fpn_bottleneck|fpn_convs\.\d+|lateral_convs\.\d+|convs\.\d+)\.convolution\.": r".\1.conv.",
        r"\.(fpn_bottleneck|fpn_convs\.\d+|lateral_convs\.\d+|convs\.\d+)\.normalization\.": r".\1.bn.",
    },
}
"""By model type: pattern to replacement, as ``from_pretrained(key_mapping=…)`` takes them: the first that matches."""


def renames(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, str] | None:
    """The ``key_mapping`` with which 4.57 finds every weight, None where the names are right as they are."""
    if not checkpoint.tensors or not checkpoint.architectures:
        return None
    model = _skeleton(checkpoint, config)
    if model is None:
        return None
    own = dict(getattr(model, "_checkpoint_conversion_mapping", None) or {})
    mapping = own | dict(RENAMES.get(checkpoint.model_type, {}))
    missing, unknown = _difference(model, checkpoint, mapping)
    if unknown and (prefix := _common_prefix(missing, unknown)):
        heads = {name.split(".", 1)[0] for name in unknown}
        mapping[rf"^({'|'.join(sorted(map(re.escape, heads)))})\b"] = rf"{prefix}\1"
        if _difference(model, checkpoint, mapping)[1]:
            return None  # the load reports every name
    relevant = any(re.search(pattern, name) for pattern in mapping for name in checkpoint.tensors)
    return mapping if relevant and mapping != own else None


def _skeleton(checkpoint: Checkpoint, config: Mapping[str, Any]) -> PreTrainedModel | None:
    """The checkpoint's own architecture on the meta device; None where it cannot be built, which loading explains."""
    model_class = getattr(transformers, checkpoint.architectures[0], None)
    config_class = root_class(checkpoint.model_type)
    if model_class is None or config_class is None:
        return None
    try:
        with torch.device("meta"):
            model: PreTrainedModel = model_class(config_class.from_dict(dict(config)))
    except Exception:  # noqa: BLE001 - whatever is wrong with the config is reported by the load, in one place
        return None
    return model


def _difference(
    model: PreTrainedModel, checkpoint: Checkpoint, mapping: Mapping[str, str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names that only the model has, and names that only the checkpoint has, with shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    renaming = model._get_key_renaming_mapping(list(checkpoint.tensors), dict(mapping))
    found = {renaming[name]: info.shape for name, info in checkpoint.tensors.items()}
    missing = {name: shape for name, shape in expected.items() if name not in found}
    unknown = {name: shape for name, shape in found.items() if name not in expected}
    return missing, unknown


def _common_prefix(missing: Mapping[str, tuple[int, ...]], unknown: Mapping[str, tuple[int, ...]]) -> str | None:
    first = next(iter(unknown))
    candidates = {name.removesuffix(first) for name in missing if name.endswith(f".{first}")}
    for prefix in sorted(candidates):
        if all(missing.get(f"{prefix}{name}") == shape for name, shape in unknown.items()):
            return prefix
    return None
