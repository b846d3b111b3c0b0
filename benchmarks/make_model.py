"""A checkpoint with random weights for measuring: the shape of Qwen3-0.6B, a mini one, or a mixture of experts.

    python benchmarks/make_model.py --preset 0.6b --out MODELS/qwen3-0.6b

Every engine that reads Hugging Face checkpoints can load it, and the same arguments give the same file. Nothing is
downloaded. The tokenizer is a byte-level BPE whose merges are written down, not trained: letters to all pairs, pairs to as
many words of four letters as the vocabulary has room for. So every id is ordinary text, and loading costs what the
tokenizer of a real model of that vocabulary costs.
"""


from __future__ import annotations

import argparse
import itertools
import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

SHAPES: dict[str, dict[str, int]] = {
    "0.6b": {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 3072, "vocab_size": 151936,
    },
    "mini": {
        "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "intermediate_size": 1536, "vocab_size": 32000,
    },
    "moe": {
        "hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
        "intermediate_size": 3072, "vocab_size": 32000, "num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 384,
    },
}  # fmt: skip
END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END, TURN, TURN_END)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces with their ids, and the merges that make them; the special tokens take the last ids."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
    merges = [(pair[0], pair[1]) for pair in pairs]
    room = size - len(pieces) - len(pairs) - len(SPECIAL)
    # The second pair goes fastest through a stride, so that a small vocabulary has words with every beginning.
    words = itertools.islice(((first, second) for second in pairs for first in pairs), room)
    pieces += pairs
    for first, second in words:
        merges.append((first, second))
        pieces.append(first + second)
    return {piece: number for number, piece in enumerate(pieces)}, merges


def make_tokenizer(size: int) -> Tokenizer:
    """The tokenizer of exactly ``size`` ids."""
    pieces, merges = vocabulary(size)
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} ids instead of {size}")
    return tokenizer


def make_config(shape: dict[str, int], max_model_len: int) -> dict[str, Any]:
    """config.json."""
    end = shape["vocab_size"] - len(SPECIAL) + SPECIAL.index(TURN_END)
    kind: dict[str, Any] = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    if "num_experts" in shape:
        kind = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "norm_topk_prob": True}
    return {
        **kind, **shape, "max_position_embeddings": max_model_len,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "attention_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": True, "use_cache": True, "initializer_range": 0.02, "torch_dtype": "bfloat16",
        "bos_token_id": end - SPECIAL.index(TURN_END), "eos_token_id": end,
    }  # fmt: skip


def make_weights(shape: dict[str, int], seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor by its name in the checkpoint; matrices are normal with deviation 0.02, norms are ones."""
    source = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.empty(rows, columns).normal_(std=0.02, generator=source).to(dtype)

    hidden, head, inner = shape["hidden_size"], shape["head_dim"], shape["intermediate_size"]
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    tensors = {"model.embed_tokens.weight": matrix(shape["vocab_size"], hidden)}
    for layer in range(shape["num_hidden_layers"]):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            tensors[f"{attention}.{name}_proj.weight"] = matrix(rows, hidden)
        tensors[f"{attention}.o_proj.weight"] = matrix(hidden, queries)
        for name in ("q_norm", "k_norm"):
            tensors[f"{attention}.{name}.weight"] = torch.ones(head, dtype=dtype)
        experts = shape.get("num_experts", 0)
        if experts:
            tensors[f"{mlp}.gate.weight"] = matrix(experts, hidden)
            inner = shape["moe_intermediate_size"]
        for prefix in [f"{mlp}.experts.{number}" for number in range(experts)] or [mlp]:
            for name in ("gate", "up"):
                tensors[f"{prefix}.{name}_proj.weight"] = matrix(inner, hidden)
            tensors[f"{prefix}.down_proj.weight"] = matrix(hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.ones(hidden, dtype=dtype)
    tensors["model.norm.weight"] = torch.ones(hidden, dtype=dtype)
    return tensors


def write(out: Path, preset: str, seed: int, dtype: str, max_model_len: int) -> None:
    """The checkpoint's files in ``out``, which is made."""
    shape = SHAPES[preset]
    out.mkdir(parents=True, exist_ok=True)
    make_tokenizer(shape["vocab_size"]).save(str(out / "tokenizer.json"))
    files = {
        "config.json": make_config(shape, max_model_len) | {"torch_dtype": dtype},
        "generation_config.json": {"eos_token_id": make_config(shape, max_model_len)["eos_token_id"], "do_sample": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": END, "chat_template": TEMPLATE,
            "model_max_length": max_model_len, "clean_up_tokenization_spaces": False,
        },
    }  # fmt: skip
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=1) + "\n")
    tensors = make_weights(shape, seed, getattr(torch, dtype))
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    print(f"{out}: {sum(t.numel() for t in tensors.values()) / 1e6:.1f} M parameters, {dtype}, seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(SHAPES), default="0.6b")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the checkpoint")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-model-len", type=int, default=40960)
    options = parser.parse_args()
    write(options.out, options.preset, options.seed, options.dtype, options.max_model_len)


if __name__ == "__main__":
    main()
