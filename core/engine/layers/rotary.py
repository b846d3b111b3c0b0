"""Rotary position embedding: inverse frequencies of every type, and the rotation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.layers.operations import TorchOperations
from engine.layers.rope import RopeSpec
from engine.plugin.contracts.operations import Operations


class Rotation(NamedTuple):
    """cos and sin of a step's rows, [T, 1, dim / 2] each; made once per step, used by every layer with ``ops``."""

    cos: Tensor
    sin: Tensor
    ops: Operations = TorchOperations()


class RotaryEmbedding(nn.Module):
    """Angles of positions. ``max_length`` fixes what types with length-dependent frequencies (dynamic, longrope) use.

    Their frequencies must not follow the sequence's momentary length: keys in the cache could then no longer be shared by
    prefix, nor computed in chunks. So a model that may serve long contexts rotates for long contexts throughout.
    """

    frequencies: Tensor

    def __init__(self, spec: RopeSpec, max_length: int, device: torch.device, ops: Operations | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.ops = ops or TorchOperations()
        frequencies, self.scale = inverse_frequencies(spec, max_length)
        self.frequencies = frequencies.to(device)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """int64 [T] → cos and sin in ``dtype``, computed in float32."""
        return Rotation(*self.ops.rotation(positions, self.frequencies, self.scale, dtype), self.ops)


def rotate(x: Tensor, rotation: Rotation, *, interleaved: bool = False) -> Tensor:
    """Rotate the first elements of each head of x [T, heads, head_dim]; what lies beyond the rotation's width passes.

    Pairs are (i, i + dim/2), or (2i, 2i + 1) where ``interleaved``.
    """
    return rotation.ops.rotate(x, rotation.cos, rotation.sin, interleaved=interleaved)


def inverse_frequencies(spec: RopeSpec, max_length: int) -> tuple[Tensor, float]:
    """[dim / 2] float32 frequencies and the factor on cos and sin."""
    steps = torch.arange(0, spec.dim, 2, dtype=torch.float32) / spec.dim
    plain = 1.0 / spec.theta**steps
    match spec.type:
        case "linear":
            return plain / spec.factor, 1.0
        case "dynamic":
            return 1.0 / _stretched_base(spec, max_length) ** steps, 1.0
        case "yarn":
            return _yarn(spec, spec.theta**steps), _yarn_scale(spec)
        case "longrope":
            factors = spec.long_factor if max_length > spec.original else spec.short_factor
            return 1.0 / (torch.tensor(factors, dtype=torch.float32) * spec.theta**steps), _longrope_scale(spec)
        case "llama3":
            return _llama3(spec, plain), 1.0
    return plain, 1.0


def _stretched_base(spec: RopeSpec, max_length: int) -> float:
    """NTK-aware base for sequences of ``max_length`` (bloc97, emozilla)."""
    length = max(max_length, spec.max_position)
    growth = spec.factor * length / spec.max_position - (spec.factor - 1)
    return spec.theta * float(growth ** (spec.dim / (spec.dim - 2)))


def _yarn(spec: RopeSpec, wavelengths: Tensor) -> Tensor:
    """Interpolate slow dimensions, keep fast ones, ramp between (YaRN, arXiv 2309.00071)."""

    def dimension(rotations: float) -> float:
        return spec.dim * math.log(spec.original / (rotations * 2 * math.pi)) / (2 * math.log(spec.theta))

    low, high = dimension(spec.beta_fast), dimension(spec.beta_slow)
    if spec.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(spec.dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return ramp / (spec.factor * wavelengths) + (1 - ramp) / wavelengths


def _yarn_scale(spec: RopeSpec) -> float:
    def temper(mscale: float) -> float:
        return 1.0 if spec.factor <= 1 else 0.1 * mscale * math.log(spec.factor) + 1.0

    if spec.attention_factor is not None:
        return spec.attention_factor
    if spec.mscale and spec.mscale_all_dim:
        return temper(spec.mscale) / temper(spec.mscale_all_dim)
    return temper(1.0)


def _longrope_scale(spec: RopeSpec) -> float:
    """The attention factor of LongRoPE (arXiv 2402.13753)."""
    if spec.attention_factor is not None:
        return spec.attention_factor
    return 1.0 if spec.factor <= 1 else math.sqrt(1 + math.log(spec.factor) / math.log(spec.original))


def _llama3(spec: RopeSpec, plain: Tensor) -> Tensor:
    """Llama 3.1: long wavelengths interpolated, short ones kept, a smooth passage between."""
    wavelengths = 2 * math.pi / plain
    low, high = spec.low_freq_factor, spec.high_freq_factor
    smooth = ((spec.original / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * plain / spec.factor + smooth * plain
