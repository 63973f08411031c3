"""Build an animal of the zoo: config, seeded weights, tokenizer and processors, saved as a user would save them."""

import copy
import json
from pathlib import Path

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, T5TokenizerFast

from tests.zoo.animal import Animal

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and 42 others watch.",
    "Zoë paid 3,50 € for a crème brûlée; 東京 is far away.",
    "Hello world! Everything that has a beginning has an end.",
)


def build(animal: Animal, task: str, folder: Path, seed: int = 0) -> Path:
    """Save a model of the animal for ``task`` to ``folder``; returns it.

    Every one-dimensional parameter (norms, biases) is moved away from its initial value, as a graph that left it out
    would still agree with a fresh model, and weights are made larger, so that greedy tokens win by a margin and do
    not repeat.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = _model(animal, task)
    _perturb(model, animal.gain)
    model.eval().save_pretrained(folder)
    parts = []
    for made in (animal.image, animal.audio):
        if made is not None:
            name, options = made
            parts.append(getattr(transformers, name)(**options))
    if animal.tokens is not None:
        parts.append(tokenizer(animal.tokens))
    if animal.processor is not None:
        parts = [getattr(transformers, animal.processor)(*parts)]
    for part in parts:
        part.save_pretrained(folder)
    if animal.sentences:
        _pool(folder, model.config.hidden_size)
    return folder


def _pool(folder: Path, size: int) -> None:
    """What sentence-transformers saves beside a model: it pools the mean of the tokens and scales it to length 1."""
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
    modules = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in kinds
    ]
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _model(animal: Animal, task: str) -> PreTrainedModel:
    config = _config(animal)
    loader = TasksManager.get_model_class_for_task(
        task.removesuffix("-with-past"), framework="pt", model_type=animal.model_type, library="transformers"
    )
    if task.startswith("automatic-speech-recognition") and animal.audio is not None and not config.is_encoder_decoder:
        loader = transformers.AutoModelForCTC
    make = getattr(loader, "_from_config", None) or loader.from_config
    return make(config)


def _config(animal: Animal) -> PretrainedConfig:
    sizes = copy.deepcopy(animal.config)  # some config classes change what they are given
    if "encoder" in sizes and "decoder" in sizes:
        parts = [AutoConfig.for_model(**sizes.pop(part)) for part in ("encoder", "decoder")]
        config_class = type(AutoConfig.for_model(animal.model_type, **copy.deepcopy(animal.config)))
        return config_class.from_encoder_decoder_configs(*parts, **sizes)
    config = AutoConfig.for_model(animal.model_type, **sizes)
    config.architectures = []  # the auto classes of types with several heads look into it
    return config


def _perturb(model: PreTrainedModel, gain: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.std() < 0.0125 * gain:
                parameter.mul_(gain)


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer trained on a few sentences, with the special tokens of its family.

    ``wordpiece``: BERT's, padded right. ``bpe``: byte-level, begins with ``<s>``, padded left, as decoders want it.
    ``seq2seq``: byte-level, ends with ``</s>``. ``t5``: the same, in T5's class.
    """
    if kind == "wordpiece":
        return _wordpiece()
    return _bpe(T5TokenizerFast if kind == "t5" else PreTrainedTokenizerFast, seq2seq=kind != "bpe")


def _wordpiece() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **names)


def _bpe(tokenizer_class: type[PreTrainedTokenizerFast], *, seq2seq: bool) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    template = "$A </s>" if seq2seq else "<s> $A"
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    options = {"extra_ids": 0} if tokenizer_class is T5TokenizerFast else {}
    return tokenizer_class(
        tokenizer_object=core,
        model_max_length=64,
        padding_side="right" if seq2seq else "left",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        **options,
    )
