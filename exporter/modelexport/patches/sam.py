"""SAM as one graph, from image and points to masks.

optimum-onnx 0.1.0: ``get_sam_models_for_export`` makes the config of the layout ``monolith`` without saying that it is
one, so its graph is the mask decoder alone, which wants the embeddings of an image encoder that is not there.
"""

from optimum.exporters.onnx.base import OnnxConfig
from transformers import PreTrainedModel


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Say it; a config of the layout ``split`` knows which half it is."""
    if config.vision_encoder is None:
        config.variant = "monolith"
