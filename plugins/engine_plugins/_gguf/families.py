"""The architectures of GGUF that the engine has: what their metadata and tensors are called in the checkpoints they came from.

Names: llama.cpp's published tensor naming (gguf-py, constants) against the families' Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: metadata key below the architecture's name → config.json key
_SIZES = {
    "block_count": "num_hidden_layers", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}  # fmt: skip
_WINDOW = {"attention.sliding_window": "sliding_window"}
_HEAD = {"attention.key_length": "head_dim"}
_EXPERTS = {
    "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
}  # fmt: skip
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}  # fmt: skip
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_BLOCK = _ATTENTION | _MLP | {"ffn_norm": "post_attention_layernorm"}
_MIXTURE = {
    "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.*.gate_proj", "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
}  # fmt: skip
_GEMMA = {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    ``ends`` and ``block``: tensor names (of ``blk.N.`` below it) → those of the checkpoint, below ``prefix``.N for blocks; a ``*``
    is an expert's number. ``keys``: metadata → configuration; ``needed``: those that must be there; ``fixed``: what the
    architecture says without a key. ``rotary_pairs``: queries and keys are stored with a head's rotated halves interleaved.
    ``norm_offset``: what was added to the weights of norms. ``fused_heads``: the fused rows are stored by part instead of by head.
    ``transposed``: the checkpoint has linear weights as [inputs, outputs].
    """

    architecture: str
    model_type: str
    ends: Mapping[str, str]
    block: Mapping[str, str]
    keys: Mapping[str, str]
    prefix: str = "model.layers"
    fixed: Mapping[str, object] = field(default_factory=dict)
    rotary_pairs: bool = False
    norm_offset: float = 0.0
    fused_heads: bool = False
    transposed: bool = False
    rope: bool = True


_LLAMA = Family("LlamaForCausalLM", "llama", _ENDS, _BLOCK, _SIZES | _HEAD, rotary_pairs=True)
_MISTRAL = Family("MistralForCausalLM", "mistral", _ENDS, _BLOCK, _SIZES | _HEAD | _WINDOW, rotary_pairs=True)
_MIXTRAL = Family(
    "MixtralForCausalLM", "mixtral", _ENDS,
    _ATTENTION | {
        "ffn_norm": "post_attention_layernorm", "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.*.w1", "ffn_up_exps": "block_sparse_moe.experts.*.w3",
        "ffn_down_exps": "block_sparse_moe.experts.*.w2",
    },
    _SIZES | _HEAD | {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    fixed={"sliding_window": None}, rotary_pairs=True,
)  # fmt: skip
_QWEN2 = Family("Qwen2ForCausalLM", "qwen2", _ENDS, _BLOCK, _SIZES, fixed={"use_sliding_window": False})
_QWEN3 = Family("Qwen3ForCausalLM", "qwen3", _ENDS, _BLOCK | _HEAD_NORMS, _SIZES | _HEAD, fixed={"use_sliding_window": False})
# llama.cpp always normalises the chosen experts' shares
_QWEN3_MOE = Family(
    "Qwen3MoeForCausalLM", "qwen3_moe", _ENDS, _BLOCK | _HEAD_NORMS | _MIXTURE, _SIZES | _HEAD | _EXPERTS,
    fixed={"norm_topk_prob": True, "use_sliding_window": False},
)  # fmt: skip
_GEMMA2 = Family(
    "Gemma2ForCausalLM", "gemma2", _ENDS, _BLOCK | _GEMMA,
    _SIZES | _HEAD | _WINDOW | {
        "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    },
    norm_offset=1.0,
)  # fmt: skip
_GEMMA3 = Family(
    "Gemma3ForCausalLM", "gemma3_text", _ENDS, _BLOCK | _GEMMA | _HEAD_NORMS,
    _SIZES | _HEAD | _WINDOW | {"rope.local.freq_base": "rope_local_base_freq", "rope.freq_base_swa": "rope_local_base_freq"},
    fixed={"rope_theta": 1_000_000.0}, norm_offset=1.0,
)  # fmt: skip
_PHI3 = Family(
    "Phi3ForCausalLM", "phi3", _ENDS,
    {
        "attn_norm": "input_layernorm", "attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj",
    },
    _SIZES | _WINDOW | {"rope.scaling.original_context_length": "original_max_position_embeddings"},
)  # fmt: skip
_GPT2 = Family(
    "GPT2LMHeadModel", "gpt2",
    {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f", "output": "lm_head"},
    {
        "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
    {
        "block_count": "n_layer", "embedding_length": "n_embd", "feed_forward_length": "n_inner", "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon", "context_length": "n_positions",
    },
    prefix="transformer.h", transposed=True, rope=False,
)  # fmt: skip
_GPT_NEOX = Family(
    "GPTNeoXForCausalLM", "gpt_neox",
    {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"},
    {
        "attn_norm": "input_layernorm", "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
        "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
    },
    {
        "block_count": "num_hidden_layers", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads", "attention.layer_norm_epsilon": "layer_norm_eps",
        "context_length": "max_position_embeddings", "use_parallel_residual": "use_parallel_residual",
        "rope.freq_base": "rotary_emb_base",
    },
    prefix="gpt_neox.layers", fused_heads=True,
)  # fmt: skip

#: By ``general.architecture``; those that share a name there are told apart by :func:`engine_plugins._gguf.model.family`.
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA, "qwen2": _QWEN2, "qwen3": _QWEN3, "qwen3moe": _QWEN3_MOE, "gemma2": _GEMMA2, "gemma3": _GEMMA3,
    "phi3": _PHI3, "gpt2": _GPT2, "gptneox": _GPT_NEOX,
}  # fmt: skip
MISTRAL, MIXTRAL = _MISTRAL, _MIXTRAL
#: Tensors that are no weights: what they say goes into the configuration.
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
