"""Small tokenizers of every algorithm, trained on a few lines and saved by transformers 5; only the maker imports
this."""

import json
from collections.abc import Callable
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as algorithms

_CORPUS = [
    "hello world the quick brown fox",
    "Der Fuchs springt über den Hund",
    "日本語 テスト 😀",
    "a  b   c\tindent\n\nnewline",
    "1234 5678 don't isn't",
] * 3


def tokenizers() -> dict[str, Callable[[], Any]]:
    """Name to a function that makes the tokenizer."""
    gpt = _bpe(
        _byte_level(["<|endoftext|>", "<|im_start|>", "<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|startoftext|>"])
    )
    llama = _bpe(_sentencepiece_bpe(["<unk>", "<s>", "</s>", "<pad>"]))
    gemma = _bpe(_sentencepiece_bpe(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]))
    words = _word_pieces()
    mpnet = words | {token: len(words) + i for i, token in enumerate(["<s>", "</s>", "<pad>", "<mask>"])}
    cohere = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    t = transformers
    return {
        "llama3": _llama3,
        "gpt2": lambda: t.GPT2Tokenizer(**gpt),
        "qwen2": lambda: t.Qwen2Tokenizer(**gpt, additional_special_tokens=["<|im_start|>"]),
        "roberta": lambda: t.RobertaTokenizer(**gpt),
        "gpt_neox": lambda: t.GPTNeoXTokenizer(**gpt),
        "whisper": lambda: t.WhisperTokenizer(**gpt),
        "clip": lambda: t.CLIPTokenizer(**gpt),
        "cohere": lambda: t.CohereTokenizer(**gpt, **cohere),
        "llama2": lambda: t.LlamaTokenizer(**llama, pad_token="<pad>"),
        "gemma": lambda: t.GemmaTokenizer(**gemma),
        "bert": lambda: t.BertTokenizer(vocab=words),
        "distilbert": lambda: t.DistilBertTokenizer(vocab=words),
        "mpnet": lambda: t.MPNetTokenizer(vocab=mpnet),
        "t5": lambda: t.T5Tokenizer(vocab=_unigram(["<pad>", "</s>", "<unk>"]), extra_ids=10),
        "xlm_roberta": lambda: t.XLMRobertaTokenizer(vocab=_unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])),
        "albert": lambda: t.AlbertTokenizer(vocab=_unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])),
        "deberta_v2": lambda: t.DebertaV2Tokenizer(vocab=_unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])),
    }


def _llama3() -> Any:
    backend = _byte_level(["<s>", "</s>", "<pad>", "<|im|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im|>"],
        model_max_length=64,
        chat_template="{% for m in messages %}<|im|>{{ m['content'] }}{% endfor %}",
    )


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(algorithms.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _sentencepiece_bpe(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(algorithms.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    every_byte = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=556, special_tokens=special + every_byte, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    """Letters and words with scores; written by hand, since the trainer gives another vocabulary each time."""
    words = _words()
    letters = sorted({letter for word in words for letter in word})
    pieces = ["▁", *letters, *(f"▁{word}" for word in words)]
    return [(token, 0.0) for token in special] + [(piece, -2.0 - 0.01 * rank) for rank, piece in enumerate(pieces)]


def _word_pieces() -> dict[str, int]:
    """Like :func:`_unigram`, as BERT writes it: continuations begin with ``##``."""
    words = [word.lower() for word in _words()]
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *(w for w in words if len(w) > 1)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _words() -> list[str]:
    return sorted({word for line in _CORPUS for word in line.split()})


def _bpe(tokenizer: Tokenizer) -> dict[str, Any]:
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return {"vocab": model["vocab"], "merges": merges}
