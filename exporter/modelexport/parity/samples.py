"""Texts that tell tokenizers apart: scripts, spaces, special tokens, nothing, a lot."""

from collections.abc import Iterable

TEXTS: tuple[str, ...] = (
    "Hello world",
    "The quick brown fox didn't jump over 13 lazy dogs; it's 3.14159, isn't it?",
    "  leading, trailing and   inner spaces  ",
    "tab\tand\nnew\r\nlines\n\n\nhere",
    "\u00a0no-break\u2003em\u3000ideographic\u200bzero-width",
    "Größe, naïve café, cafe\u0301, ﬁligature, ½, Ⅷ",
    "Γειά σου Κόσμε. Привет, мир! שלום עולם. مرحبا بالعالم",
    "日本語のテキスト、中文文本，한국어 텍스트。",
    "नमस्ते दुनिया ภาษาไทย",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 emoji",
    "ÅÄÖ åäö İı ß ẞ DŽ",
    "CamelCase snake_case kebab-case http://example.org/a?b=c#d user@example.org",
    "def f(x):\n    return x ** 2  # comment\n",
    "!?.,;:'\"()[]{}<>/\\|@#$%^&*-_=+~`",
    "\x00\x07\x1b\x7f control",
    "<s> </s> <pad> <unk> <mask> [CLS] [SEP] [PAD] [UNK] [MASK] <|endoftext|>",
    "",
    " ",
    "lorem ipsum dolor sit amet " * 150,
)

PAIRS: tuple[tuple[str, str], ...] = (("What is it?", "It is a test."), ("", "second"), ("日本語", "<s> naïve "))


def texts_for(special_tokens: Iterable[str]) -> tuple[str, ...]:
    """The texts, and some that hold the tokenizer's own special tokens."""
    return (*TEXTS, *(f"a{token} b {token}{token}c" for token in sorted(special_tokens)[:50]))
