"""Layers as ModelOpt and Quark write them, from their specifications: plain loops and tables, nothing of the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.quant.checkpoints import Quantized

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
TOP = 448.0


def float8(weight: Tensor, *, per_output: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scale (a number, or [N]) and what they stand for."""
    scale = (weight.abs().amax(1) if per_output else weight.abs().max()) / TOP
    wide = scale.unsqueeze(1) if per_output else scale
    values = (weight / wide).to(torch.float8_e4m3fn)
    return values, scale, values.float() * wide


def e2m1(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Codes two to a byte, the even input low, and the numbers they stand for; ``scale`` has the weight's shape."""
    ratio = weight / scale
    code = (ratio.abs().unsqueeze(-1) - E2M1).abs().argmin(-1)
    codes = code + 8 * (ratio < 0)
    values = E2M1[code] * torch.where(ratio < 0, -1.0, 1.0) * scale
    return (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8), values


def nvfp4(weight: Tensor) -> Quantized:
    """ModelOpt's NVFP4 with a static outer scale for activations."""
    outer = weight.abs().max() / (6 * TOP)
    scale = (weight.unflatten(1, (-1, 16)).abs().amax(-1) / 6 / outer).to(torch.float8_e4m3fn)
    codes, dense = e2m1(weight, (scale.float() * outer).repeat_interleave(16, 1).clamp(min=1e-12))
    return {"weight": codes, "weight_scale": scale, "weight_scale_2": outer, "input_scale": torch.tensor(4 / (6 * TOP))}, dense


def mxfp4(weight: Tensor) -> Quantized:
    """Quark's MXFP4: exponents of powers of two as bytes."""
    power = (weight.unflatten(1, (-1, 32)).abs().amax(-1) / 6).log2().ceil()
    codes, dense = e2m1(weight, torch.exp2(power).repeat_interleave(32, 1))
    return {"weight": codes, "weight_scale": (power + 127).to(torch.uint8)}, dense


def nibble_rows(weight: Tensor, group: int = 64, **more: Tensor) -> Quantized:
    """ModelOpt's 4-bit integers: two outputs to a byte, two's complement."""
    scale = weight.unflatten(1, (-1, group)).abs().amax(-1) / 7
    wide = scale.repeat_interleave(group, 1)
    values = (weight / wide).round().clamp(-8, 7)
    bits = values.to(torch.int64) % 16
    return {"weight": (bits[0::2] | bits[1::2] << 4).to(torch.uint8), "weight_scale": scale, **more}, values * wide


def integer8(weight: Tensor, **more: Tensor) -> Quantized:
    """8-bit integers, one scale per output."""
    scale = weight.abs().amax(1) / 127
    values = (weight / scale.unsqueeze(1)).round()
    return {"weight": values.to(torch.int8), "weight_scale": scale, **more}, values * scale.unsqueeze(1)


def modelopt_config(algorithm: str, **more: Any) -> dict[str, Any]:
    """As it stands in config.json."""
    return {"quant_method": "modelopt", "quant_algo": algorithm, "producer": {"name": "modelopt"}, "ignore": ["lm_head"]} | more


def quark_rule(dtype: str, scheme: str = "per_tensor", dynamic: bool = False, **more: Any) -> dict[str, Any]:
    """Weights or activations in a rule of Quark."""
    return {"dtype": dtype, "qscheme": scheme, "is_dynamic": dynamic, "symmetric": True} | more


def quark_config(weight: dict[str, Any] | None, inputs: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A quantization_config of Quark: one rule for all layers."""
    rule = {"weight": weight, "input_tensors": inputs, "output_tensors": None, "bias": None}
    return {
        "quant_method": "quark", "export": {"pack_method": "reorder", "kv_cache_group": []}, "global_quant_config": rule,
        "layer_quant_config": {}, "layer_type_quant_config": {}, "exclude": ["lm_head"],
    } | more  # fmt: skip


def per_layer(weight: Tensor) -> Quantized:
    """8-bit floats with one scale, activations static."""
    values, scale, dense = float8(weight)
    return {"weight": values, "weight_scale": scale, "input_scale": torch.tensor(0.02)}, dense


def in_blocks(weight: Tensor, size: int = 128) -> Quantized:
    """8-bit floats with a scale per block."""
    wide = torch.empty_like(weight)
    scale = torch.empty(-(-weight.shape[0] // size), -(-weight.shape[1] // size))
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            place = (slice(size * i, size * (i + 1)), slice(size * j, size * (j + 1)))
            scale[i, j] = wide[place] = weight[place].abs().max() / TOP
    values = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale_inv": scale}, values.float() * wide


def per_output(weight: Tensor) -> Quantized:
    """8-bit floats with a scale per output [N, 1]."""
    values, scale, dense = float8(weight, per_output=True)
    return {"weight": values, "weight_scale": scale.unsqueeze(1)}, dense


def alone(made: Quantized) -> Quantized:
    """Without what concerns activations."""
    return {name: tensor for name, tensor in made[0].items() if not name.startswith("input")}, made[1]


def rounded_static(_: str, x: Tensor) -> Tensor:
    """Activations by the static scale of :func:`per_layer`."""
    return (x / 0.02).clamp(-TOP, TOP).to(torch.float8_e4m3fn).float() * 0.02


def rounded_by_token(_: str, x: Tensor) -> Tensor:
    """Activations by one scale per row."""
    scale = x.abs().amax(-1, keepdim=True) / TOP
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def rounded_by_group(_: str, x: Tensor) -> Tensor:
    """Activations by one scale per row and 128 inputs."""
    return torch.cat([rounded_by_token("", piece) for piece in x.split(128, -1)], -1)


def rounded_to_fours(_: str, x: Tensor) -> Tensor:
    """Activations by an e4m3 scale per 16 inputs under the static one of :func:`nvfp4`."""
    outer = torch.tensor(4 / (6 * TOP))
    blocks = x.unflatten(-1, (-1, 16))
    scale = (blocks.abs().amax(-1, keepdim=True) / 6 / outer).clamp(max=TOP).to(torch.float8_e4m3fn).float() * outer
    ratio = blocks / torch.where(scale == 0, 1.0, scale)
    code = (ratio.abs().unsqueeze(-1) - E2M1).abs().argmin(-1)
    return (E2M1[code] * torch.where(ratio < 0, -1.0, 1.0) * scale).flatten(-2)
