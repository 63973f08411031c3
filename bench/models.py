"""The models of the benchmark: seeded, made once from their configs into ``.bench/models`` (MiniLM is the real one)."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.model import download

ROOT = Path(".bench")


@dataclass(frozen=True)
class Model:
    """One line of the benchmark.

    Attributes:
        name: as in the table.
        task: given to both sides, so that neither has to guess.
        pairs: how many times both sides run, alternately.
    """

    name: str
    task: str
    pairs: int
    model_type: str = "bert"
    auto_class: str = "AutoModelForSequenceClassification"
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return ROOT / "models" / self.name.replace(" ", "-")

    @property
    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))


def _bert(layers: int, hidden: int, **more: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 4 * hidden}
    return {**sizes, "num_attention_heads": max(hidden // 64, 2), "vocab_size": 30522, **more}


MODELS = (
    Model("bert 0.5M", "text-classification", 5, config=_bert(2, 64, vocab_size=5000)),
    Model("minilm real", "feature-extraction", 5, auto_class="AutoModel"),
    Model("bert 110M", "text-classification", 5, config=_bert(12, 768)),
    Model("bert 335M", "text-classification", 3, config=_bert(24, 1024)),
    Model("bert 840M", "text-classification", 3, config=_bert(36, 1344, num_attention_heads=21)),
    Model("gpt2 124M", "text-generation-with-past", 5, "gpt2", "AutoModelForCausalLM"),
    Model(
        "t5 60M", "text2text-generation-with-past", 5, "t5", "AutoModelForSeq2SeqLM",
        {"decoder_start_token_id": 0},
    ),
    Model("vit 86M", "image-classification", 5, "vit", "AutoModelForImageClassification", {"num_labels": 1000}),
)  # fmt: skip

SIZES = tuple(
    Model(f"bert {layers} layers", "text-classification", 1, config=_bert(layers, 1344, num_attention_heads=21))
    for layers in (1, 12, 24)
)
"""For the plots of time and memory against size, from 0.2 GB up; the 840 M model is the last point."""


def ensure(model: Model) -> Path:
    """The folder of ``model``, made in a process of its own where it is not there yet."""
    done = model.folder / ".complete"
    if not done.exists():
        if model.name == "minilm real":
            shutil.copytree(download(), model.folder)
        else:
            subprocess.run([sys.executable, "-m", "bench.models", model.name], check=True)
        done.touch()
    return model.folder


def _make(model: Model) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoConfig, PreTrainedTokenizerFast, ViTImageProcessor

    torch.manual_seed(0)
    config = AutoConfig.for_model(model.model_type, **model.config)
    instance = getattr(transformers, model.auto_class).from_config(config)
    with torch.no_grad():
        for parameter in instance.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    instance.save_pretrained(model.folder, max_shard_size="50GB")
    if model.model_type == "vit":
        ViTImageProcessor().save_pretrained(model.folder)
        return
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog " * 3], trainers.WordPieceTrainer(special_tokens=special)
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]", model_max_length=512
    ).save_pretrained(model.folder)


if __name__ == "__main__":
    _make(next(model for model in (*MODELS, *SIZES) if model.name == sys.argv[1]))
