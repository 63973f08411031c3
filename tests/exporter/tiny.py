"""Tiny real models for the exporter's tests: seeded, with LayerNorm and biases perturbed.

A fresh model has LayerNorm weights of one and biases of zero, so a graph that left them out would still agree with it.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast, ViTImageProcessor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CORPUS = (
    "The quick brown fox jumps over the lazy dog, and 42 others watch.",
    "Zoë paid 3,50 € for a crème brûlée; 東京 is far away.",
    "Hello world! Everything that has a beginning has an end.",
)
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 130,
}


def save_text(folder: Path, model_type: str = "bert", auto_class: str = "AutoModel", **config: Any) -> PreTrainedModel:
    """Save a tiny text encoder and its WordPiece tokenizer to ``folder``; returns the model."""
    tokenizer = save_tokenizer(folder)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37} if model_type == "distilbert" else SMALL
    return save_model(
        folder, model_type, auto_class, **{"vocab_size": len(tokenizer), "pad_token_id": 0, **sizes, **config}
    )


def save_vit(folder: Path, auto_class: str = "AutoModelForImageClassification", **config: Any) -> PreTrainedModel:
    """Save a tiny ViT and its image processor to ``folder``; returns the model."""
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    return save_model(folder, "vit", auto_class, **{"image_size": 32, "patch_size": 8, **sizes, **config})


def save_model(folder: Path, model_type: str, auto_class: str, seed: int = 0, **config: Any) -> PreTrainedModel:
    """Save a seeded model of any type to ``folder``; returns it."""
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(AutoConfig.for_model(model_type, **config))
    perturb(model)
    model.eval().save_pretrained(folder)
    return model


def perturb(model: PreTrainedModel) -> None:
    """Move every one-dimensional parameter (norms, biases) away from its initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Train and save a small WordPiece tokenizer with BERT's special tokens."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=180, special_tokens=list(SPECIAL)))
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
