"""--hf-overrides that change nothing because nobody reads them: most often a key misspelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.args.spelling import nearest

#: Top-level keys of config.json that the native architectures and the engine read, beside those that the config has itself.
KNOWN = frozenset({
    "architectures", "model_type", "dtype", "torch_dtype", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "hidden_activation", "rms_norm_eps", "layer_norm_eps",
    "layer_norm_epsilon", "attention_bias", "mlp_bias", "tie_word_embeddings", "max_position_embeddings", "rope_theta", "rope_scaling",
    "rope_parameters", "rope_local_base_freq", "partial_rotary_factor", "original_max_position_embeddings", "sliding_window",
    "use_sliding_window", "max_window_layers", "layer_types", "sliding_window_pattern", "num_local_experts", "num_experts",
    "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "quantization_config", "compression_config",
    "text_config", "vision_config", "bos_token_id", "eos_token_id", "pad_token_id", "n_positions", "n_ctx", "n_embd", "n_layer",
    "n_head", "n_inner", "activation_function", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length",
    "max_seq_length", "rotary_pct", "rotary_emb_base", "use_parallel_residual", "ffn_dim", "do_layer_norm_before",
    "word_embed_proj_dim", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "generation_config",
})  # fmt: skip


def unread_overrides(overrides: Iterable[str], config: Iterable[str]) -> Iterator[str]:
    """A warning for each override that neither the config has nor the engine reads, naming the nearest key that is known."""
    known = KNOWN | set(config)
    for key in overrides:
        if key not in known:
            near = nearest(key, sorted(known))
            hint = f" Did you mean {near}?" if near else ""
            yield f"--hf-overrides {key}: the model's config has no such key, and the engine's own architectures read none.{hint}"
