"""Encoder-decoders of text."""

from typing import Any

from tests.zoo.animal import VOCABULARY, Animal, Sizes, Task
from tests.zoo.decoders import GENERATE, GPT2
from tests.zoo.text_encoders import BERT

BART: Sizes = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 41,
    "max_position_embeddings": 130,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5: Sizes = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
SEQ2SEQ = ("text2text-generation-with-past",)


def _seq2seq(
    model_type: str, tasks: tuple[Task, ...] = SEQ2SEQ, base: Sizes = BART, variant: str = "", **config: Any
) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="seq2seq", variant=variant)


_TWO_BERTS: Sizes = {
    "encoder": {"model_type": "bert", **BERT},
    "decoder": {"model_type": "bert", **BERT, "add_cross_attention": True, "is_decoder": True},
    "decoder_start_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


SEQ2SEQS = (
    _seq2seq("bart", (*SEQ2SEQ, "text2text-generation", "feature-extraction", "text-classification", *GENERATE)),
    _seq2seq("bigbird_pegasus", attention_type="original_full"),
    _seq2seq("blenderbot"),
    _seq2seq("blenderbot-small"),
    _seq2seq(
        "encoder-decoder",
        base={
            **_TWO_BERTS,
            "decoder": {"model_type": "gpt2", **GPT2, "add_cross_attention": True, "is_decoder": True},
        },
    ),
    _seq2seq("encoder-decoder", ("text2text-generation",), _TWO_BERTS, variant="two BERTs"),
    _seq2seq("longt5", base=T5, local_radius=4, global_block_size=4, encoder_attention_type="local"),
    _seq2seq(
        "longt5",
        base=T5,
        variant="global blocks",
        local_radius=4,
        global_block_size=4,
        encoder_attention_type="transient-global",
    ),
    _seq2seq("m2m_100"),
    _seq2seq("marian"),
    _seq2seq("mbart", (*SEQ2SEQ, *GENERATE)),
    _seq2seq("mt5", base=T5, d_kv=16, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    _seq2seq("pegasus"),
    _seq2seq("t5", (*SEQ2SEQ, "text2text-generation", "feature-extraction"), T5),
)
