"""SigLIP with the attention mask that its tokenizer makes.

optimum-onnx 0.1.0: ``SiglipOnnxConfig`` has no ``attention_mask`` (``NOTE: No attention_mask``). That is right for
tokenizers that make none, as SigLIP's own, whose repos say ``"model_input_names": ["input_ids"]``. With one that does
(SigLIP 2 has Gemma's) PyTorch masks the padding and the graph reads it as words: padded to 64 tokens, as SigLIP wants
its texts, the logits of a small model differ by 0.3, and the export reports nothing. So the graph takes a mask where
the repo's tokenizer makes one; ``ORTModelForZeroShotImageClassification`` passes it on.
"""

from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.model_configs import SiglipOnnxConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _WithMask(SiglipOnnxConfig):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        inputs: dict[str, dict[int, str]] = super().inputs
        return {**inputs, "attention_mask": inputs["input_ids"]}


def adapt(_: PreTrainedModel, config: OnnxConfig) -> None:
    """Give the graph a mask where the tokenizer among the preprocessors makes one."""
    tokenizers = (part for part in config._preprocessors or () if isinstance(part, PreTrainedTokenizerBase))
    if any("attention_mask" in tokenizer.model_input_names for tokenizer in tokenizers):
        config.__class__ = _WithMask
