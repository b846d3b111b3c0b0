"""Whether a checkpoint's tensors fit its configuration, from headers alone: before any process is started for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod
from typing import Any

from engine.errors import ModelFileError
from engine.plugin.facts import DTYPE_BYTES, ModelInfo, TensorInfo

#: The engine's architectures whose checkpoints use the names below.
FAMILIES = frozenset({
    "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
    "Gemma2ForCausalLM", "Gemma3ForCausalLM",
})  # fmt: skip
_PLAIN = ("float64", "float32", "float16", "bfloat16")
_LAYER = re.compile(r"(?:model\.)?layers\.(\d{1,9})\.(.+)")
_FIX = "check that config.json and the weight files belong together"


def check_shapes(tensors: Iterable[TensorInfo], info: ModelInfo, config: dict[str, Any]) -> None:
    """Refuse plain tensors of another shape than the configuration asks for, and layers that are missing or too many.

    Names outside the families' scheme, quantized tensors and fused ones are left to loading. Raises :class:`ModelFileError`.
    """
    layers = dict.fromkeys(range(len(info.layers)), False)
    ends = {"embed_tokens.weight", "lm_head.weight"}
    seen = False
    for tensor in tensors:
        seen = True
        match = _LAYER.fullmatch(tensor.name)
        wanted: tuple[int, ...] | None
        if match is None:
            rest = tensor.name.removeprefix("model.")
            wanted = (info.vocab_size, info.hidden_size) if rest in ends else (info.hidden_size,) if rest == "norm.weight" else None
        else:
            index = int(match[1])
            if index not in layers:
                raise ModelFileError(
                    f"{tensor.file}: tensor {tensor.name!r} is of layer {index}, but the configuration has {len(layers)} layers.", fix=_FIX
                )
            layers[index] = True
            wanted = _in_layer(match[2], info, index, config)
        # a single column is what quantized codes look like that are stored as floats; loading looks closer
        if wanted is not None and tensor.dtype in _PLAIN and tensor.shape not in (wanted, (prod(tensor.shape), 1)):
            raise ModelFileError(
                f"{tensor.file}: tensor {tensor.name!r} has shape {list(tensor.shape)}, but the configuration asks for {list(wanted)}.",
                fix=_FIX,
            )
    missing = [index for index, found in layers.items() if not found]
    if seen and missing:
        raise ModelFileError(f"The checkpoint has no tensor of layer {missing[0]} ({len(missing)} of {len(layers)} are missing).", fix=_FIX)


def expected_tensors(info: ModelInfo, config: dict[str, Any], dtype: str) -> list[TensorInfo]:
    """The tensors that a checkpoint of one of the ``FAMILIES`` would have, for weights that no file holds (``dummy``)."""
    hidden = info.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (info.vocab_size, hidden), "model.norm.weight": (hidden,)}
    if not info.tied_embeddings:
        shapes["lm_head.weight"] = (info.vocab_size, info.hidden_size)
    for index in range(len(info.layers)):
        known = _known(info, index, config)
        if info.num_experts:
            inner = config.get("moe_intermediate_size") or config.get("intermediate_size") or 0
            known = {name: shape for name, shape in known.items() if not name.startswith("mlp.")}
            known |= {f"mlp.experts.{e}.{i}": (int(inner), info.hidden_size) for e in range(info.num_experts) for i in (1, 2, 3)}
            known["mlp.gate.weight"] = (info.num_experts, info.hidden_size)
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in known.items()}
    width = DTYPE_BYTES[dtype]
    return [TensorInfo(name, dtype, shape, int(prod(shape) * width), "") for name, shape in shapes.items()]


def _in_layer(name: str, info: ModelInfo, index: int, config: dict[str, Any]) -> tuple[int, ...] | None:
    return _known(info, index, config).get(name)


def _known(info: ModelInfo, index: int, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    spec, hidden = info.layers[index], info.hidden_size
    inner = config.get("intermediate_size")
    known: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (spec.num_heads * spec.head_dim, hidden),
        "self_attn.k_proj.weight": (spec.num_kv_heads * spec.head_dim, hidden),
        "self_attn.v_proj.weight": (spec.num_kv_heads * spec.head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, spec.num_heads * spec.head_dim),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if isinstance(inner, int):
        known |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden), "mlp.down_proj.weight": (hidden, inner)}
    return known
