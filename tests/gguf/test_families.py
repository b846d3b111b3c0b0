"""Every architecture from a GGUF file: transformers' logits of the same weights, whatever the tensors' types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gguf.producer import write_gguf
from tests.plugins.models.checkpoints import randomize
from tests.quant import checkpoints

pytest.importorskip("gguf")
SIZES: dict[str, Any] = {
    "vocab_size": 160, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
MOE = {"moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
#: Architecture in the file → transformers' config class and what differs from SIZES.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaConfig", {"head_dim": 64}),
    "llama, tied and biased": ("llama", "LlamaConfig", {"head_dim": 64, "tie_word_embeddings": True, "attention_bias": True}),
    "mistral": ("llama", "MistralConfig", {"head_dim": 64, "sliding_window": 8}),
    "mixtral": ("llama", "MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2": ("qwen2", "Qwen2Config", {}),
    "qwen3": ("qwen3", "Qwen3Config", {"head_dim": 128, "tie_word_embeddings": True}),
    "qwen3moe": ("qwen3moe", "Qwen3MoeConfig", {"head_dim": 64, **MOE}),
    "gemma2": ("gemma2", "Gemma2Config", {"head_dim": 64, "tie_word_embeddings": True, "query_pre_attn_scalar": 64, **SLIDING}),
    "gemma3": ("gemma3", "Gemma3TextConfig", {
        "head_dim": 64, "tie_word_embeddings": True, "query_pre_attn_scalar": 64, "sliding_window": 8, "num_hidden_layers": 6,
    }),
    "phi3": ("phi3", "Phi3Config", {"pad_token_id": 0}),
    "gpt2": ("gpt2", "GPT2Config", {"n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 256, "tie_word_embeddings": True}),
    "gptneox": ("gptneox", "GPTNeoXConfig", {"rotary_pct": 0.25}),
}  # fmt: skip


def source(path: Path, name: str) -> tuple[Path, str]:
    """A random checkpoint of transformers in ``path``, and its architecture in GGUF."""
    import transformers

    architecture, config_class, changes = FAMILIES[name]
    sizes = {key: value for key, value in SIZES.items() if config_class != "GPT2Config" or key in ("vocab_size", "tie_word_embeddings")}
    config = getattr(transformers, config_class)(**(sizes | changes))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize(model)
    model.tie_weights()
    model.save_pretrained(path)
    return path, architecture


def further(name: str) -> Any:
    def add(writer: Any) -> None:
        if name == "gptneox":
            writer.add_rope_dimension_count(16)
            writer.add_parallel_residual(True)
            writer.add_rope_freq_base(10_000.0)

    return add


def mixed(name: str) -> str:
    """Types that differ between the parts of fused layers, as real mixtures do."""
    kinds = {
        "attn_q": "Q4_K", "attn_k": "Q8_0", "attn_v": "Q6_K", "attn_qkv": "Q5_K", "attn_output": "Q4_0", "ffn_gate": "Q3_K",
        "ffn_up": "F16", "ffn_down": "Q5_0", "ffn_gate_exps": "Q4_K", "ffn_up_exps": "Q4_K", "ffn_down_exps": "Q6_K",
        "token_embd": "Q6_K", "output": "IQ4_XS",
    }  # fmt: skip
    return kinds[name.split(".")[-2]]


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_weights(name, tmp_path):
    place, architecture = source(tmp_path / "source", name)
    meant = write_gguf(tmp_path / "file" / "m.gguf", place, architecture, extra=further(name))
    wanted = checkpoints.logits_of_transformers(place, meant, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(tmp_path / "file" / "m.gguf"), wanted) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_types_that_differ_within_layers(name, tmp_path):
    place, architecture = source(tmp_path / "source", name)
    meant = write_gguf(tmp_path / "file" / "m.gguf", place, architecture, mixed, extra=further(name))
    wanted = checkpoints.logits_of_transformers(place, meant, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(tmp_path / "file" / "m.gguf"), wanted) < 1e-5
