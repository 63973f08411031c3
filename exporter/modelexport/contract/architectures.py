"""The architectures that can be exported, for whoever has to know before there is an engine to ask: before a download.

The engine itself asks Optimum. The list here is what Optimum answers in the environment that the exporter is locked to;
a test compares them.
"""

from collections.abc import Mapping
from typing import Any

from modelexport.contract.errors import UnsupportedArchitectureError

MODEL_TYPES = frozenset(
    """
    albert arcee audio-spectrogram-transformer bart beit bert big_bird bigbird_pegasus blenderbot
    blenderbot-small bloom camembert chinese_clip clip clip_vision_model codegen cohere colpali convbert
    convnext convnextv2 cvt d_fine data2vec-audio data2vec-text data2vec-vision deberta deberta-v2
    decision_transformer deepseek_v3 deit detr dinov2 distilbert donut-swin dpt efficientnet electra
    encoder-decoder esm falcon flaubert gemma gemma2 gemma3 gemma3_text glm glpn gpt2 gpt_bigcode gpt_neo
    gpt_neox gpt_oss gptj granite groupvit helium hiera hubert ibert imagegpt internlm2 layoutlm layoutlmv3
    levit lilt llama longformer longt5 m2m_100 marian markuplm maskformer mbart mctct megatron-bert metaclip_2
    mgp-str mistral mobilebert mobilenet_v1 mobilenet_v2 mobilevit modernbert moonshine mpnet mpt mt5 musicgen
    nemotron nystromformer olmo olmo2 opt owlv2 owlvit patchtsmixer patchtst pegasus perceiver phi phi3
    pix2struct poolformer pvt qwen2 qwen3 qwen3_moe regnet rembert resnet roberta roformer rt_detr rt_detr_v2
    sam segformer sew sew-d siglip siglip-text siglip-text-with-projection siglip_vision_model smollm3
    speech_to_text speecht5 splinter squeezebert stablelm swin swin2sr swinv2 t5 table-transformer trocr
    unispeech unispeech-sat vision-encoder-decoder visual_bert vit vit_mae vit_msn vitpose vits wav2vec2
    wav2vec2-conformer wavlm whisper xlm xlm-roberta yolos
    """.split()  # noqa: SIM905  a hundred and fifty lines otherwise
)
"""``model_type`` of every architecture that optimum-onnx 0.1.0 has an ONNX config for."""


def require_known(config: Mapping[str, Any]) -> None:
    """Refuse a repo by its ``config.json`` alone; passes what says nothing of its type, or is code of the repo.

    Raises:
        UnsupportedArchitectureError: nothing can export the architecture.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type not in MODEL_TYPES and "auto_map" not in config:
        raise unsupported(model_type)


def unsupported(model_type: str) -> UnsupportedArchitectureError:
    """The error for an architecture that Optimum has no ONNX config for."""
    return UnsupportedArchitectureError(
        f"Optimum has no ONNX export for the architecture {model_type!r}, so there is nothing that could be verified. "
        "The list of those it has: https://huggingface.co/docs/optimum-onnx/onnx/overview"
    )
