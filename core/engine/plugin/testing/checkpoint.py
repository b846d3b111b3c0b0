"""A checkpoint small enough for every test: two seeded layers of Llama with the demo model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Sizes of the tiny model; the vocabulary is the demo tokenizer's.
TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "dtype": "float32",
}  # fmt: skip
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def tiny_tensors(seed: int = 0) -> dict[str, Tensor]:
    """The tiny model's tensors by checkpoint name, float32, the same for the same seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    hidden, inner, heads, kv = TINY["hidden_size"], TINY["intermediate_size"], 4 * TINY["head_dim"], 2 * TINY["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (TINY["vocab_size"], hidden)}
    for layer in range(TINY["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{name}_proj.weight": (rows, hidden) for name, rows in (("q", heads), ("k", kv), ("v", kv))}
        shapes |= {f"{prefix}self_attn.o_proj.weight": (hidden, heads), f"{prefix}mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{prefix}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes |= {f"{prefix}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (TINY["vocab_size"], hidden)}
    return {name: _values(shape, generator) for name, shape in shapes.items()}


def _values(shape: tuple[int, ...], generator: Any) -> Tensor:
    import torch

    values = torch.randn(shape, generator=generator)
    return 1 + 0.1 * values if len(shape) == 1 else values * shape[1] ** -0.5


def write_tiny_checkpoint(place: Path, seed: int = 0) -> Path:
    """Config, weights (``model.safetensors``), tokenizer and chat template in ``place``."""
    from safetensors.torch import save_file

    import engine

    place.mkdir(parents=True, exist_ok=True)
    bundled = Path(engine.__file__).parent / "bundled" / "demo"
    for name in _TOKENIZER:
        shutil.copyfile(bundled / name, place / name)
    ends = json.loads((bundled / "config.json").read_text())
    special = {key: ends[key] for key in ("bos_token_id", "eos_token_id") if key in ends}
    (place / "config.json").write_text(json.dumps(TINY | special))
    save_file(tiny_tensors(seed), str(place / "model.safetensors"), metadata={"format": "pt"})
    return place
