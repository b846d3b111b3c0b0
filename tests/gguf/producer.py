"""Writes GGUF files of tiny checkpoints with the gguf package, converted as llama.cpp converts them, and says what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.quant.checkpoints import tensors_of

#: Where a block type keeps its float16 scales, and what each is relative to the first, so that weights spread around 0.
SCALES: dict[str, dict[int, float]] = {
    "Q4_0": {0: 1}, "Q4_1": {0: 1, 2: -7.5}, "Q5_0": {0: 1}, "Q5_1": {0: 1, 2: -15.5}, "Q8_0": {0: 1}, "Q2_K": {80: 1, 82: 1.5},
    "Q3_K": {108: 1}, "Q4_K": {0: 1, 2: 7.5}, "Q5_K": {0: 1, 2: 15.5}, "Q6_K": {208: 1}, "TQ1_0": {52: 1}, "TQ2_0": {64: 1},
    "IQ2_XXS": {0: 1}, "IQ2_XS": {0: 1}, "IQ2_S": {0: 1}, "IQ3_XXS": {0: 1}, "IQ3_S": {0: 1}, "IQ1_S": {0: 1}, "IQ1_M": {},
    "IQ4_NL": {0: 1}, "IQ4_XS": {0: 1}, "MXFP4": {},
}  # fmt: skip
_KEYS = {"weight": (".weight",), "bias": (".bias",)}


def random_blocks(kind: str, rows: int, inputs: int, *, std: float = 0.06, seed: int = 0) -> np.ndarray:
    """Raw uint8 rows of random blocks whose weights have about that deviation."""
    from gguf import quants
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    source = np.random.default_rng(seed)
    blocks = source.integers(0, 256, (rows * inputs // elements, size), dtype=np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = source.integers(118, 123, len(blocks))
    if kind == "IQ1_M":  # the float16's parts are the upper halves of four words: 2^-7
        for place, nibble in zip((49, 51, 53, 55), (0, 0, 0, 2), strict=True):
            blocks[:, place] = (blocks[:, place] & 15) | (nibble << 4)

    def scaled(scale: float) -> None:
        for place, ratio in SCALES[kind].items():
            spread = source.uniform(0.8, 1.2, (len(blocks), 1))
            blocks[:, place : place + 2] = (scale * ratio * spread).astype(np.float16).view(np.uint8)

    if SCALES[kind]:
        scaled(1.0)
        scaled(std / float(quants.dequantize(blocks, GGMLQuantizationType[kind]).std()))
    return blocks.reshape(rows, -1)


def dequantized(kind: str, raw: np.ndarray) -> Tensor:
    """float32, by the gguf package."""
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    return torch.from_numpy(quants.dequantize(raw, GGMLQuantizationType[kind]).copy())


def encoded(kind: str, weight: Tensor, seed: int, fit: bool = False) -> np.ndarray:
    """Raw rows: the package's rounding where it has one, random blocks for the types that it only reads; ``fit``: those rounded too."""
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    if kind in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"):
        return quants.quantize(weight.float().numpy(), GGMLQuantizationType[kind])
    rows = weight.numel() // weight.shape[-1]
    if fit:
        from tests.gguf.encoders import encode

        return encode(kind, weight.float().numpy().reshape(rows, -1)).reshape(*weight.shape[:-1], -1)
    return random_blocks(kind, rows, weight.shape[-1], seed=seed).reshape(*weight.shape[:-1], -1)


class Conversion:
    """One family's way from a checkpoint's tensors to the file's, and back."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.type = config["model_type"]
        self.heads = config.get("num_attention_heads", config.get("n_head"))
        self.kv = config.get("num_key_value_heads", self.heads)

    def there(self, name: str, tensor: Tensor) -> Tensor:
        if self.type in ("llama", "mistral", "mixtral") and any(part in name for part in (".q_proj.", ".k_proj.")):
            heads = self.heads if ".q_proj." in name else self.kv
            return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        if self.type.startswith("gemma") and name.endswith("norm.weight"):
            return tensor + 1
        if self.type == "gpt2" and tensor.dim() == 2 and ".h." in name:
            return tensor.t().contiguous()
        if self.type == "gpt_neox" and "query_key_value" in name:
            return tensor.reshape(self.heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
        return tensor

    def back(self, name: str, tensor: Tensor) -> Tensor:
        if self.type in ("llama", "mistral", "mixtral") and any(part in name for part in (".q_proj.", ".k_proj.")):
            heads = self.heads if ".q_proj." in name else self.kv
            return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        if self.type.startswith("gemma") and name.endswith("norm.weight"):
            return tensor - 1
        if self.type == "gpt2" and tensor.dim() == 2 and ".h." in name:
            return tensor.t().contiguous()
        if self.type == "gpt_neox" and "query_key_value" in name:
            return tensor.reshape(3, self.heads, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
        return tensor


#: Keys of config.json (the first that is there) by the writer's method.
_METADATA = {
    "add_block_count": ("num_hidden_layers", "n_layer"), "add_context_length": ("max_position_embeddings", "n_positions"),
    "add_embedding_length": ("hidden_size", "n_embd"), "add_head_count": ("num_attention_heads", "n_head"),
    "add_feed_forward_length": ("intermediate_size", "n_inner"), "add_head_count_kv": ("num_key_value_heads",),
    "add_layer_norm_rms_eps": ("rms_norm_eps",), "add_layer_norm_eps": ("layer_norm_epsilon", "layer_norm_eps"),
    "add_key_length": ("head_dim",), "add_value_length": ("head_dim",), "add_expert_count": ("num_local_experts", "num_experts"),
    "add_expert_used_count": ("num_experts_per_tok",), "add_expert_feed_forward_length": ("moe_intermediate_size",),
    "add_attn_logit_softcapping": ("attn_logit_softcapping",), "add_final_logit_softcapping": ("final_logit_softcapping",),
}  # fmt: skip


def write_metadata(writer: Any, config: dict[str, Any]) -> None:
    """The keys of llama.cpp's converter that the families share."""
    for method, keys in _METADATA.items():
        found = next((config[key] for key in keys if config.get(key) is not None), None)
        if found is not None:
            getattr(writer, method)(found)
    rope = config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or rope.get("rope_theta") or rope.get("full_attention", {}).get("rope_theta")
    if theta:
        writer.add_rope_freq_base(theta)
    if config.get("sliding_window") and config["model_type"] not in ("qwen2", "qwen3", "qwen3_moe"):
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gpt2" and config.get("n_inner") is None:
        writer.add_feed_forward_length(4 * config["n_embd"])


def write_gguf(
    path: Path, source: Path, architecture: str, kind: Callable[[str], str] = lambda name: "F32",
    *, extra: Callable[[Any], None] = lambda writer: None, split: int = 0, fit: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """Write ``source`` (a saved checkpoint) as ``path``; returns the weights that the file means, by their names in ``source``.

    ``kind``: the type of each matrix by its name in the file. ``extra``: adds further metadata. ``split``: tensors per file. ``fit``:
    types that the package cannot write hold the weights rounded, not random ones.
    """
    from gguf import GGUFWriter
    from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType
    from gguf.tensor_mapping import get_tensor_name_map

    config = json.loads((source / "config.json").read_text())
    which = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    assert isinstance(which, MODEL_ARCH)
    names = get_tensor_name_map(which, config.get("num_hidden_layers", config.get("n_layer")))
    path.parent.mkdir(exist_ok=True, parents=True)
    writer = GGUFWriter(path, architecture, split_max_tensors=split)
    write_metadata(writer, config)
    extra(writer)
    conversion = Conversion(config)
    meant: dict[str, Tensor] = {}
    for index, (name, (members, tensor)) in enumerate(stacked(tensors_of(source)).items()):
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        converted = conversion.there(name, tensor.float())
        plain = converted.dim() == 1 or "ffn_gate_inp" in found or "position_embd" in found
        chosen = "F32" if plain else kind(found)
        raw = encoded(chosen, converted, index, fit)
        writer.add_tensor(found, raw, raw_dtype=GGMLQuantizationType[chosen])
        restored = conversion.back(name, dequantized(chosen, raw).reshape(converted.shape))
        meant |= {name: restored} if not members else dict(zip(members, restored, strict=True))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def stacked(tensors: dict[str, Tensor]) -> dict[str, tuple[list[str], Tensor]]:
    """All experts of a layer in one tensor, with the names that they had."""
    found: dict[str, tuple[list[str], Tensor]] = {}
    for name, tensor in tensors.items():
        whole = re.sub(r"\.experts\.\d+\.", ".experts.", name)
        if whole == name:
            found[name] = ([], tensor)
        elif whole not in found:
            members = sorted((each for each in tensors if re.sub(r"\.experts\.\d+\.", ".experts.", each) == whole), key=_expert)
            found[whole] = (members, torch.stack([tensors[each] for each in members]))
    return found


def _expert(name: str) -> int:
    return int(name.split(".experts.")[1].split(".")[0])
