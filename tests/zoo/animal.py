"""What an animal of the zoo is, as data: model type, tasks, config, and what prepares the inputs.

Sizes are odd where the architecture lets them be, and differ from each other, so that a transposed or swapped axis
shows.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Tokens = Literal["wordpiece", "bpe", "seq2seq", "t5"]
Task = str
Sizes = dict[str, Any]

VOCABULARY = 300
"""Token ids of every model that reads text; the tokenizers of the zoo have fewer."""


@dataclass(frozen=True)
class Animal:
    """One model type.

    Attributes:
        model_type: as in ``config.json``.
        tasks: what it is exported for, by Optimum's names.
        config: keyword arguments of the config class, in nested dictionaries for models of several parts.
        tokens: kind of tokenizer; None for a model that reads no text.
        image: class and keyword arguments of the image processor.
        audio: class and keyword arguments of the feature extractor.
        gain: what small initial weights are multiplied with; detectors rank their candidates, and without it all tie.
        processor: class that joins image processor and tokenizer, where the repo needs to name it.
        sentences: whether it is a repo of sentence-transformers: modules that pool what the model returns.
        variant: what is special about this one, where there are several of the model type; at most a few words.
    """

    model_type: str
    tasks: tuple[Task, ...]
    config: Sizes = field(default_factory=dict)
    tokens: Tokens | None = None
    image: tuple[str, Sizes] | None = None
    audio: tuple[str, Sizes] | None = None
    processor: str | None = None
    gain: float = 4.0
    sentences: bool = False
    variant: str = ""

    @property
    def name(self) -> str:
        """Model type and variant: what the animal is called in the table."""
        return f"{self.model_type} ({self.variant})" if self.variant else self.model_type

    @property
    def stem(self) -> str:
        """The same for the name of a file."""
        return "-".join((self.model_type, *self.variant.split()))
