"""Which model types need more than Optimum's own config and patches: one function each, in a file of its own."""

from collections.abc import Callable, Mapping

from optimum.exporters.onnx.base import OnnxConfig
from transformers import PreTrainedModel

from modelexport.patches import (
    decision_transformer,
    deepseek_v3,
    imagegpt,
    longformer,
    longt5,
    maskformer,
    metaclip_2,
    perceiver,
    sam,
    siglip,
    vit_mae,
)

Adapter = Callable[[PreTrainedModel, OnnxConfig], None]
"""Changes a loaded model or its export config, in place."""

ADAPTERS: Mapping[str, Adapter] = {
    "decision_transformer": decision_transformer.adapt,
    "deepseek_v3": deepseek_v3.adapt,
    "imagegpt": imagegpt.adapt,
    "longformer": longformer.adapt,
    "longt5": longt5.adapt,
    "maskformer": maskformer.adapt,
    "metaclip_2": metaclip_2.adapt,
    "perceiver": perceiver.adapt,
    "sam": sam.adapt,
    "siglip": siglip.adapt,
    "vit_mae": vit_mae.adapt,
}
