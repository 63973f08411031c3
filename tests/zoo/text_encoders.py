"""Text encoders."""

from dataclasses import replace
from typing import Any

from tests.zoo.animal import VOCABULARY, Animal, Sizes, Task

BERT: Sizes = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 130,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
DISTILBERT: Sizes = {
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 37,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
}
XLM: Sizes = {
    "vocab_size": VOCABULARY,
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 130,
    "pad_index": 0,
    "pad_token_id": 0,
}

ALL_TEXT = (
    "feature-extraction",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
)
SOME_TEXT = ("feature-extraction", "fill-mask", "text-classification")


def _text(model_type: str, tasks: tuple[Task, ...] = SOME_TEXT, base: Sizes = BERT, **config: Any) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="wordpiece")


_PUBLISHED_MARKUP: Sizes = {"max_depth": 50, "xpath_unit_hidden_size": 32, "tag_pad_id": 216, "subs_pad_id": 1001}

TEXT = (
    _text("albert", ALL_TEXT, embedding_size=16),
    _text("bert", ALL_TEXT),
    replace(_text("bert", ("feature-extraction",)), sentences=True, variant="sentence-transformers"),
    _text("big_bird", attention_type="original_full"),
    _text("camembert"),
    _text("convbert", embedding_size=32, conv_kernel_size=3),
    _text("data2vec-text"),
    _text("deberta", SOME_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=16),
    _text("deberta-v2", ALL_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8),
    _text("distilbert", ALL_TEXT, DISTILBERT),
    _text("electra", embedding_size=16),
    _text("esm", emb_layer_norm_before=False, mask_token_id=4, position_embedding_type="rotary", token_dropout=True),
    _text("flaubert", base=XLM),
    _text("ibert"),
    _text("layoutlm", ("feature-extraction", "token-classification"), max_2d_position_embeddings=1024),
    _text("lilt", ("feature-extraction", "token-classification"), hidden_size=48, max_2d_position_embeddings=1024),
    _text("longformer", ("feature-extraction", "fill-mask"), attention_window=8),
    _text("markuplm", ("feature-extraction", "token-classification"), max_depth=10, xpath_unit_hidden_size=8),
    replace(_text("markuplm", ("token-classification",), **_PUBLISHED_MARKUP), variant="published depth"),
    _text("megatron-bert"),
    _text("mobilebert", embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
    _text("modernbert", SOME_TEXT, global_attn_every_n_layers=2, local_attention=8, reference_compile=False),
    _text("mpnet"),
    _text("nystromformer", segment_means_seq_len=64, num_landmarks=64, conv_kernel_size=5),
    _text("rembert", input_embedding_size=16, output_embedding_size=24),
    _text("roberta", ALL_TEXT),
    _text("roformer", embedding_size=32),
    _text("splinter", ("feature-extraction", "question-answering"), question_token_id=4),
    _text("squeezebert", embedding_size=32, intermediate_size=40),
    _text("xlm", base=XLM),
    _text("xlm-roberta"),
)
