"""What producers publish beside the common form of a method: written from the formats' descriptions, logits against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.quant import floats, packers
from tests.quant.checkpoints import (
    Quantized,
    change_tensors,
    logits_of,
    logits_of_transformers,
    tensors_of,
    tiny_mixtral,
    worst,
    write_quantized,
)

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}


def quark_words(weight: Tensor, *, signed: bool, reorder: bool = True) -> Quantized:
    """4-bit integers as Quark packs them: two's complement with zero points of 0, or unsigned ones."""
    members = np.arange(weight.shape[1]) // 32
    codes, scales, zeros = packers.in_groups(weight, members, weight.shape[1] // 32, 4, signed)
    dense = packers.dense_of(codes, scales, zeros, members)
    middle = 8 if signed else 0
    order = [0, 2, 4, 6, 1, 3, 5, 7] if reorder else list(range(8))
    tensors = {
        "weight": packers.nibbles(codes.T - middle, order), "weight_scale": torch.from_numpy(scales.T.copy()),
        "weight_zero_point": packers.nibbles(zeros.T - middle, order),
    }  # fmt: skip
    return tensors, dense


def six_bits(weight: Tensor, exponent: int) -> Quantized:
    """6-bit floats, four in three bytes, a power of two per 32 inputs."""
    mantissa = 5 - exponent
    bias = (1 << (exponent - 1)) - 1
    values = [
        (m / (1 << mantissa)) * 2.0 ** (1 - bias) if e == 0 else (1 + m / (1 << mantissa)) * 2.0 ** (e - bias)
        for e in range(1 << exponent)
        for m in range(1 << mantissa)
    ]
    table = torch.tensor(values)
    blocks = weight.unflatten(1, (-1, 32))
    power = (blocks.abs().amax(-1) / table[-1]).log2().ceil()
    scaled = blocks / power.exp2().unsqueeze(-1)
    magnitude = (scaled.abs().unsqueeze(-1) - table).abs().argmin(-1)
    codes = (magnitude + 32 * (scaled < 0)).flatten(1).int()
    dense = (table[magnitude] * torch.sign(scaled) * power.exp2().unsqueeze(-1)).flatten(1)
    word = sum(codes[:, n::4] << (6 * n) for n in range(4))
    assert isinstance(word, Tensor)
    packed = torch.stack([(word >> shift) & 255 for shift in (0, 8, 16)], -1).flatten(1).to(torch.uint8)
    return {"weight": packed, "weight_scale": (power + 127).to(torch.uint8)}, dense


def nvfp4_32(weight: Tensor) -> Quantized:
    """ModelOpt's 4-bit floats with a scale per 32 inputs."""
    outer = weight.abs().max() / (6 * 448)
    scale = (weight.unflatten(1, (-1, 32)).abs().amax(-1) / 6 / outer).to(torch.float8_e4m3fn)
    packed, dense = floats.e2m1(weight, (scale.float() * outer).repeat_interleave(32, 1))
    tensors = {"weight": packed, "weight_scale": scale, "weight_scale_2": outer, "input_scale": torch.tensor(0.02)}
    return tensors, dense


def named(made: Quantized, **names: str) -> Quantized:
    """The same tensors under other names."""
    return {names.get(name, name): tensor for name, tensor in made[0].items()}, made[1]


UINT4 = floats.quark_rule("uint4", "per_group", group_size=32) | {"symmetric": False}
INT4 = floats.quark_rule("int4", "per_group", group_size=32)
IN_ORDER = {"export": {"pack_method": "order", "kv_cache_group": []}}
AUTO = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False, "data_type": "int"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
VARIANTS: dict[str, tuple[Callable[[Tensor], Quantized], dict[str, Any]]] = {
    "quark int4": (lambda w: quark_words(w, signed=True), floats.quark_config(INT4, None)),
    "quark uint4": (lambda w: quark_words(w, signed=False), floats.quark_config(UINT4, None)),
    "quark uint4 in order": (lambda w: quark_words(w, signed=False, reorder=False), floats.quark_config(UINT4, None) | IN_ORDER),
    "quark fp6_e2m3": (lambda w: six_bits(w, 2), floats.quark_config(floats.quark_rule("fp6_e2m3", "per_group", group_size=32), None)),
    "quark fp6_e3m2": (lambda w: six_bits(w, 3), floats.quark_config(floats.quark_rule("fp6_e3m2", "per_group", group_size=32), None)),
    "modelopt W4A8_MXFP4_FP8": (floats.mxfp4, floats.modelopt_config("W4A8_MXFP4_FP8")),
    "awq gemv": (packers.gemv, AWQ | {"version": "gemv"}),
    "awq gemv_fast": (packers.gemv_fast, AWQ | {"version": "gemv_fast"}),
    "awq gemv_fast in groups of 64": (lambda w: packers.gemv_fast(w, group=64), AWQ | {"version": "GEMV_FAST", "group_size": 64}),
    "llm-awq": (packers.llm_awq, AWQ | {"backend": "llm-awq"}),
    "the first llm-awq": (packers.awq, AWQ | {"backend": "llm-awq"}),
    "auto-round as gptq": (
        lambda w: packers.gptq(w, symmetric=False, index=False), AUTO | {"packing_format": "auto_round:auto_gptq"}
    ),
    "auto-round, whole zero points": (
        lambda w: packers.gptq(w, symmetric=False, index=False, version=2), AUTO | {"packing_format": "auto_round:gptqmodel"}
    ),
    "intel/auto-round": (
        lambda w: packers.gptq(w, index=False), AUTO | {"quant_method": "intel/auto-round", "sym": True}
    ),
    "auto-round, by its backend": (
        lambda w: packers.gptq(w, index=False, version=2),
        {key: value for key, value in AUTO.items() if key != "sym"} | {"sym": True, "backend": "auto_round:exllamav2"},
    ),
    "compressed-tensors, blocks as a text": (
        lambda w: named(floats.in_blocks(w), weight_scale_inv="weight_scale"),
        {
            "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
            "config_groups": {"a": {"targets": ["Linear"], "weights": {
                "num_bits": 8, "type": "float", "strategy": "block", "block_structure": "128x128", "symmetric": True,
            }}},
        },
    ),
    "auto-round as awq": (packers.awq, AUTO | {"packing_format": "auto_round:auto_awq"}),
    "auto-round of 2 bits": (
        lambda w: packers.gptq(w, bits=2, symmetric=False, index=False), AUTO | {"bits": 2, "packing_format": "auto_round:auto_gptq"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_weights(llama: Path, tmp_path: Path, name: str, ranks: int) -> None:
    pack, config = VARIANTS[name]
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: pack(weight), config)
    assert worst(logits_of(tmp_path / "q", ranks=ranks), logits_of_transformers(llama, dense, tmp_path)) < 1e-5


def test_modelopt_fours_with_scales_per_32(llama: Path, tmp_path: Path) -> None:
    config = floats.modelopt_config("W4A8_NVFP4_FP8")
    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: nvfp4_32(weight), config)
    wanted = logits_of_transformers(llama, dense, tmp_path, rounding=floats.rounded_static)
    assert worst(logits_of(tmp_path / "q"), wanted) < 2e-2


def test_modelopt_mxfp4_rounds_activations_to_powers_of_two(llama: Path, tmp_path: Path) -> None:
    def rounded(_: str, x: Tensor) -> Tensor:
        blocks = x.unflatten(-1, (-1, 32))
        scale = (blocks.abs().amax(-1) / 6).clamp(min=2.0**-127).log2().ceil().exp2()
        flat = x.reshape(-1, x.shape[-1])
        return floats.e2m1(flat, scale.reshape(len(flat), -1).repeat_interleave(32, 1))[1].view(x.shape)

    dense = write_quantized(tmp_path / "q", llama, lambda _, weight: floats.mxfp4(weight), floats.modelopt_config("mxfp4"))
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(llama, dense, tmp_path, rounding=rounded)) < 1e-1


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_codes_of_bitsandbytes_stored_as_floats(llama: Path, tmp_path: Path, stored: torch.dtype, ranks: int) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")

    def quantize(name: str, weight: Tensor) -> Quantized | None:
        if name.endswith("o_proj"):
            return None
        packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", quant_storage=stored)
        dense = functional.dequantize_4bit(packed, state).float()
        return {"weight": packed} | {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}, dense

    config = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_quant_storage": str(stored).removeprefix("torch."), "llm_int8_skip_modules": ["lm_head", "o_proj"],
    }  # fmt: skip
    dense = write_quantized(tmp_path / "q", llama, quantize, config)
    assert worst(logits_of(tmp_path / "q", ranks=ranks), logits_of_transformers(llama, dense, tmp_path)) < 1e-5


def test_auto_round_says_which_layers(llama: Path, tmp_path: Path) -> None:
    plain, eight = "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"

    def quantize(name: str, weight: Tensor) -> Quantized | None:
        if name == plain or name.startswith("model.layers.1.mlp"):
            return None
        return packers.gptq(weight, bits=8 if name == eight else 4, index=False)

    config = AUTO | {
        "sym": True, "packing_format": "auto_round:auto_gptq",
        "block_name_to_quantize": "model.layers.0, model.layers.1.self_attn", "extra_config": {plain: {"bits": 16}, eight: {"bits": 8}},
    }  # fmt: skip
    dense = write_quantized(tmp_path / "q", llama, quantize, config)
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(llama, dense, tmp_path)) < 1e-5


@pytest.mark.parametrize("ranks", [1, 2])
def test_layers_that_a_producer_left_alone_without_a_word(llama: Path, tmp_path: Path, ranks: int) -> None:
    """``modules_in_block_to_quantize`` and the like: one part of a fused layer, and a whole layer, have a plain weight."""

    def quantize(name: str, weight: Tensor) -> Quantized | None:
        return None if name.endswith(("0.self_attn.k_proj", "1.mlp.down_proj")) else packers.gptq(weight)

    dense = write_quantized(tmp_path / "q", llama, quantize, GPTQ)
    assert worst(logits_of(tmp_path / "q", ranks=ranks), logits_of_transformers(llama, dense, tmp_path)) < 1e-5


def test_experts_under_the_names_of_their_class(tmp_path: Path) -> None:
    """Mixtral's experts as gate_proj, up_proj and down_proj."""
    source = tiny_mixtral(tmp_path / "plain")
    config = {
        "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head", "re:.*gate$"],
        "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel", "symmetric": True}}},
    }  # fmt: skip

    def quantize(_: str, weight: Tensor) -> Quantized:
        tensors, dense = floats.integer8(weight)
        return tensors | {"weight_scale": tensors["weight_scale"].unsqueeze(1)}, dense

    dense = write_quantized(tmp_path / "q", source, quantize, config)
    names = {".w1.": ".gate_proj.", ".w2.": ".down_proj.", ".w3.": ".up_proj."}
    renamed = {}
    for name, tensor in tensors_of(tmp_path / "q").items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    save_file(renamed, tmp_path / "q" / "model.safetensors", metadata={"format": "pt"})
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5


def test_fused_experts_that_a_producer_left_alone(tmp_path: Path) -> None:
    """A tool that knows linear layers alone does not see experts that are one tensor."""
    source = tiny_mixtral(tmp_path / "plain")

    def quantize(name: str, weight: Tensor) -> Quantized | None:
        return None if "experts" in name else floats.alone(floats.per_layer(weight))

    dense = write_quantized(tmp_path / "q", source, quantize, floats.quark_config(floats.quark_rule("fp8_e4m3"), None))

    def fuse(tensors: dict[str, Tensor]) -> None:
        for block in range(2):
            prefix = f"model.layers.{block}.block_sparse_moe.experts"
            one, two, three = ([tensors.pop(f"{prefix}.{expert}.{name}.weight") for expert in range(4)] for name in ("w1", "w2", "w3"))
            gate_up = torch.stack([torch.cat(pair) for pair in zip(one, three, strict=True)])
            fused = f"model.layers.{block}.mlp.experts"
            tensors |= {f"{fused}.gate_up_proj": gate_up, f"{fused}.down_proj": torch.stack(two)}

    change_tensors(tmp_path / "q", fuse)
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(source, dense, tmp_path)) < 1e-5
