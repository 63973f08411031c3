"""Decoders: models that continue a text."""

from typing import Any

from tests.zoo.animal import VOCABULARY, Animal, Sizes, Task

LLAMA: Sizes = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2: Sizes = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GENERATE = ("text-generation-with-past",)
BOTH = ("text-generation-with-past", "text-generation")
CLASSIFY = ("text-generation-with-past", "text-classification")


def _decoder(
    model_type: str, tasks: tuple[Task, ...] = GENERATE, base: Sizes = LLAMA, variant: str = "", **config: Any
) -> Animal:
    return Animal(model_type, tasks, {**base, **config}, tokens="bpe", variant=variant)


_GEMMA: Sizes = {**LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
_MOE: Sizes = {**LLAMA, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
_DEEPSEEK: Sizes = {
    **_MOE,
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_GPT_OSS: Sizes = {**LLAMA, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}
_YARN: Sizes = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 32,
}

DECODERS = (
    _decoder("arcee"),
    _decoder("bloom", (*CLASSIFY, "token-classification"), {**GPT2, "hidden_size": 32}),
    _decoder("codegen", base={**GPT2, "rotary_dim": 4, "n_ctx": 128}),
    _decoder("cohere"),
    _decoder("deepseek_v3", base=_DEEPSEEK),
    _decoder("deepseek_v3", base=_DEEPSEEK, variant="many experts", n_routed_experts=24, n_group=4, topk_group=2),
    _decoder("falcon", (*GENERATE, "token-classification"), num_kv_heads=4, alibi=False, ffn_hidden_size=37),
    _decoder(
        "falcon", variant="several key-value heads", num_kv_heads=2, new_decoder_architecture=True, ffn_hidden_size=37
    ),
    _decoder("gemma", CLASSIFY, {**LLAMA, "head_dim": 16}),
    _decoder("gemma2", CLASSIFY, _GEMMA),
    _decoder(
        "gemma3",
        (*BOTH, "feature-extraction", "text-classification"),
        {
            "text_config": {**_GEMMA, "sliding_window_pattern": 2},
            "vision_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 37,
                "image_size": 32,
                "patch_size": 8,
            },
            "mm_tokens_per_image": 4,
            "boi_token_index": 297,
            "eoi_token_index": 298,
            "image_token_index": 299,
        },
    ),
    _decoder("gemma3_text", base=_GEMMA, sliding_window_pattern=2),
    _decoder("glm", partial_rotary_factor=0.5, head_dim=8),
    _decoder("gpt2", (*BOTH, "feature-extraction", "text-classification", "token-classification"), GPT2),
    _decoder("gpt_bigcode", CLASSIFY, GPT2),
    _decoder(
        "gpt_neo",
        CLASSIFY,
        {**GPT2, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 128},
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    ),
    _decoder("gpt_neox", CLASSIFY, rotary_pct=0.5),
    _decoder("gpt_oss", base=_GPT_OSS),
    _decoder("gpt_oss", base=_GPT_OSS, variant="many experts", num_local_experts=32, num_experts_per_tok=4),
    _decoder(
        "gpt_oss",
        base={**_GPT_OSS, "max_position_embeddings": 512},
        variant="published positions",
        sliding_window=4,
        num_hidden_layers=4,
        rope_scaling=_YARN,
    ),
    _decoder("gptj", CLASSIFY, {**GPT2, "rotary_dim": 4}),
    _decoder("granite"),
    _decoder("helium", head_dim=8),
    _decoder("llama", (*BOTH, "feature-extraction", "text-classification")),
    _decoder("llama", ("text-classification",), variant="no padding token", pad_token_id=None),
    _decoder("mistral", CLASSIFY, sliding_window=16),
    _decoder(
        "mpt", CLASSIFY, {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}
    ),
    _decoder("nemotron", head_dim=8),
    _decoder("nemotron", variant="one key-value head", head_dim=16, num_key_value_heads=1),
    _decoder("olmo"),
    _decoder("olmo2"),
    _decoder("opt", CLASSIFY, ffn_dim=37, word_embed_proj_dim=32),
    _decoder("phi", CLASSIFY, partial_rotary_factor=0.5),
    _decoder("phi3", CLASSIFY),
    _decoder("qwen2", (*CLASSIFY, "token-classification")),
    _decoder("qwen3", (*BOTH, "text-classification"), head_dim=16),
    _decoder("qwen3_moe", base=_MOE, num_experts=4, head_dim=8, decoder_sparse_step=1),
    _decoder("smollm3", CLASSIFY),
    _decoder("stablelm"),
)
