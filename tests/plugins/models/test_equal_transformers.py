"""Every native architecture gives transformers' logits and greedy tokens, in mixed batches with prompts in chunks."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.plugins.models.checkpoints import GROUPED, POSITIONS, SIZES, VOCAB, prompts, save
from tests.plugins.models.harness import Player, architecture, build, checkpoint

G = GROUPED | POSITIONS
OPT = {"vocab_size": VOCAB, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
GPT2 = {"vocab_size": VOCAB - 1, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
NO_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GEMMA = G | NO_SPECIAL | {"head_dim": 16, "query_pre_attn_scalar": 9, "sliding_window": 6, "vocab_size": VOCAB}
MIXTRAL = {"intermediate_size": 64}
MOE = G | {"moe_intermediate_size": 64, "num_experts": 6, "num_experts_per_tok": 3, "head_dim": 16}
CASES = {
    "llama": ("llama", LlamaConfig(**G)),
    "llama biases, head_dim, tied": (
        "llama",
        LlamaConfig(**G, attention_bias=True, mlp_bias=True, head_dim=16, tie_word_embeddings=True),
    ),
    "mistral": ("mistral", MistralConfig(**G, sliding_window=6, head_dim=10)),
    "mistral no window": ("mistral", MistralConfig(**G, sliding_window=None, hidden_act="gelu")),
    "qwen2": ("qwen2", Qwen2Config(**G, tie_word_embeddings=True)),
    "qwen2 window": ("qwen2", Qwen2Config(**G, use_sliding_window=True, sliding_window=7, max_window_layers=2)),
    "qwen3": ("qwen3", Qwen3Config(**G, head_dim=16, tie_word_embeddings=True)),
    "qwen3 window": (
        "qwen3",
        Qwen3Config(
            **G, head_dim=8, use_sliding_window=True, sliding_window=7, max_window_layers=1, attention_bias=True
        ),
    ),
    "gemma2": ("gemma2", Gemma2Config(**GEMMA, final_logit_softcapping=3.0, attn_logit_softcapping=2.0)),
    "gemma2 no caps": (
        "gemma2",
        Gemma2Config(
            **GEMMA, final_logit_softcapping=None, attn_logit_softcapping=None, attention_bias=True,
            layer_types=["full_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "gemma3": ("gemma3", Gemma3TextConfig(**GEMMA, layer_types=["sliding_attention"] * 2 + ["full_attention"])),
    "gemma3 scaled": (
        "gemma3",
        Gemma3TextConfig(
            **GEMMA, final_logit_softcapping=4.0,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
    ),
    "phi3": ("phi3", Phi3Config(**G, **NO_SPECIAL)),
    "phi3 partial, window": (
        "phi3",
        Phi3Config(
            **G, **NO_SPECIAL, sliding_window=9, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
        ),
    ),
    "opt": ("opt", OPTConfig(**OPT, max_position_embeddings=128)),
    "opt post-norm, projected, untied": (
        "opt",
        OPTConfig(
            **OPT, max_position_embeddings=128, do_layer_norm_before=False, word_embed_proj_dim=20,
            tie_word_embeddings=False, activation_function="gelu",
        ),
    ),
    "opt no biases": (
        "opt",
        OPTConfig(
            **OPT, max_position_embeddings=128, enable_bias=False, layer_norm_elementwise_affine=False,
            _remove_final_layer_norm=True,
        ),
    ),
    "gpt2": ("gpt2", GPT2Config(**GPT2)),
    "gpt2 scales": (
        "gpt2",
        GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, n_inner=40, tie_word_embeddings=False),
    ),
    "gpt_neox": ("gpt_neox", GPTNeoXConfig(**SIZES, **POSITIONS, rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.25})),
    "gpt_neox serial": (
        "gpt_neox",
        GPTNeoXConfig(
            **SIZES, **POSITIONS, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast",
            tie_word_embeddings=True, rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 1.0},
        ),
    ),
    "mixtral": ("mixtral", MixtralConfig(**G | MIXTRAL, num_local_experts=5, num_experts_per_tok=2)),
    "mixtral window": ("mixtral", MixtralConfig(**G | MIXTRAL, num_local_experts=3, num_experts_per_tok=1, sliding_window=8)),
    "qwen3_moe": ("qwen3_moe", Qwen3MoeConfig(**MOE, norm_topk_prob=True)),
    "qwen3_moe dense layers": ("qwen3_moe", Qwen3MoeConfig(**MOE, mlp_only_layers=[0], decoder_sparse_step=2)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens(case, tmp_path):
    module, config = CASES[case]
    reference = save(config, tmp_path)
    model, made = build(architecture(module), *checkpoint(tmp_path))
    check(reference, Player(model, made).run(prompts(), 64))


def check(reference, sequences):
    """Every fed position's logits, and the 64 greedy tokens, against one forward pass of the reference."""
    for sequence in sequences:
        assert len(sequence.tokens) == sequence.prompt + 64
        with torch.inference_mode():
            expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
        got = torch.stack(sequence.logits)
        assert (got - expected[: len(got)]).abs().max() < 1e-4
        greedy = expected[sequence.prompt - 1 : -1].argmax(-1).tolist()
        assert greedy == sequence.tokens[sequence.prompt :]
        assert expected.std() > 0.05, "logits too flat to compare"
    assert len({token for sequence in sequences for token in sequence.tokens[sequence.prompt :]}) > 5
