"""GGUF blocks that are integers with scales: fields of each type (block layouts: ggml's ggml-common.h, as docs of the format state)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.layers.packed_integer import pack_fields, pack_planes
from engine.layers.packed_quantized import GroupedInteger


class Fields(NamedTuple):
    """weight[i] = scale[g] · (value[i] - zero) - least[g]: ``value`` uint8 [n, elements] of ``bits`` bits, floats [n, groups]."""

    value: Tensor
    scale: Tensor
    least: Tensor | None
    zero: int
    bits: int

    @property
    def group(self) -> int:
        """Elements that share a scale."""
        return self.value.shape[1] // self.scale.shape[1]

    def weights(self) -> Tensor:
        """float32 [n, elements], each operation in the order in which the format states it."""
        integers = (self.value.to(torch.int16) - self.zero).float()
        scale = self.scale.float().repeat_interleave(self.group, 1)
        if self.least is None:
            return scale * integers
        return scale * integers - self.least.float().repeat_interleave(self.group, 1)

    def grouped(self, outputs: int, dtype: torch.dtype | None = None) -> GroupedInteger:
        """As rows of a weight. ``dtype``: that of scales and shifts; None: the scales' own, shifts in float32, so that nothing is lost."""
        middle = 1 << (self.bits - 1)
        shift = None
        if self.least is not None:
            shift = self.scale.float() * (middle - self.zero) - self.least.float()
        elif self.zero != middle:
            shift = self.scale.float() * (middle - self.zero)
        scale = self.scale if dtype is None else self.scale.to(dtype)
        shift = shift if shift is None or dtype is None else shift.to(dtype)
        scale, shift = scale.reshape(outputs, -1), shift if shift is None else shift.reshape(outputs, -1)
        inputs = self.value.numel() // outputs
        return GroupedInteger(self._stored(outputs), scale, shift, bits=self.bits, inputs=inputs, group=self.group, exclusive=True)

    def _stored(self, outputs: int) -> Tensor:
        """The values as the layout keeps them, which are the file's where they fill bytes evenly."""
        value = self.value.reshape(outputs, -1)
        if self.bits == 8:
            return (value ^ 128).view(torch.int8)
        if self.bits in (2, 4):
            return pack_fields(value, self.bits)
        return pack_planes(value.to(torch.int16) - (1 << (self.bits - 1)), self.bits)


def half(blocks: Tensor, start: int, count: int = 1) -> Tensor:
    """float16 [n, count] at byte ``start``."""
    return blocks[:, start : start + 2 * count].contiguous().view(torch.float16)


def nibbles(data: Tensor) -> Tensor:
    """[n, bytes] → [n, 2 · bytes]: all low halves, then all high ones."""
    return torch.cat((data & 15, data >> 4), 1)


def runs(data: Tensor, width: int, bits: int) -> Tensor:
    """[n, bytes] in runs of ``width`` bytes; each gives 8 / bits runs of ``width`` fields, the lowest bits first."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device).view(1, 1, -1, 1)
    fields = (data.reshape(len(data), -1, 1, width) >> shifts) & ((1 << bits) - 1)
    return fields.flatten(1)


def fifth_bits(blocks: Tensor, start: int) -> Tensor:
    """Bit i of the 32-bit word at ``start``, as 0 or 16: uint8 [n, 32]."""
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)
    return ((blocks[:, start : start + 4].unsqueeze(-1) >> shifts) & 1).flatten(1) << 4


def q4_0(b: Tensor) -> Fields:
    """32: d, nibbles around 8."""
    return Fields(nibbles(b[:, 2:18]), half(b, 0), None, 8, 4)


def q4_1(b: Tensor) -> Fields:
    """32: d, m, nibbles."""
    return Fields(nibbles(b[:, 4:20]), half(b, 0), -half(b, 2), 0, 4)


def q5_0(b: Tensor) -> Fields:
    """32: d, fifth bits, nibbles, around 16."""
    return Fields(nibbles(b[:, 6:22]) | fifth_bits(b, 2), half(b, 0), None, 16, 5)


def q5_1(b: Tensor) -> Fields:
    """32: d, m, fifth bits, nibbles."""
    return Fields(nibbles(b[:, 8:24]) | fifth_bits(b, 4), half(b, 0), -half(b, 2), 0, 5)


def q8_0(b: Tensor) -> Fields:
    """32: d, int8."""
    return Fields(b[:, 2:34] ^ 128, half(b, 0), None, 128, 8)


def q2_k(b: Tensor) -> Fields:
    """256: 16 bytes of scale and least in 4 bits each, 2-bit fields, d, dmin."""
    scale = half(b, 80).float() * (b[:, :16] & 15)
    least = half(b, 82).float() * (b[:, :16] >> 4)
    return Fields(runs(b[:, 16:80], 32, 2), scale, least, 0, 2)


def q3_k(b: Tensor) -> Fields:
    """256: third bits, 2-bit fields, 16 scales of 6 bits around 32, d."""
    value = runs(b[:, 32:96], 32, 2) | (runs(b[:, :32], 32, 1) << 2)
    low, high = nibbles(b[:, 96:104]), runs(b[:, 104:108], 4, 2)
    scale = half(b, 108).float() * ((low | (high << 4)).to(torch.int16) - 32)
    return Fields(value, scale, None, 4, 3)


def _eight_scales(b: Tensor) -> tuple[Tensor, Tensor]:
    """float32 scale and least [n, 8] of the 4- and 5-bit types: d and dmin, then 12 bytes of 6-bit numbers."""
    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = torch.cat((first & 63, (third & 15) | (first >> 6 << 4)), 1)
    least = torch.cat((second & 63, (third >> 4) | (second >> 6 << 4)), 1)
    return half(b, 0).float() * scale, half(b, 2).float() * least


def q4_k(b: Tensor) -> Fields:
    """256: scales, nibbles in runs of 32."""
    return Fields(runs(b[:, 16:144], 32, 4), *_eight_scales(b), 0, 4)


def q5_k(b: Tensor) -> Fields:
    """256: scales, fifth bits, nibbles in runs of 32."""
    return Fields(runs(b[:, 48:176], 32, 4) | (runs(b[:, 16:48], 32, 1) << 4), *_eight_scales(b), 0, 5)


def q6_k(b: Tensor) -> Fields:
    """256: nibbles in runs of 64, upper 2 bits in runs of 32, 16 int8 scales, d; around 32."""
    value = runs(b[:, :128], 64, 4) | (runs(b[:, 128:192], 32, 2) << 4)
    scale = half(b, 208).float() * b[:, 192:208].contiguous().view(torch.int8)
    return Fields(value, scale, None, 32, 6)


def tq1_0(b: Tensor) -> Fields:
    """256: ternary digits, five (in the last four bytes four) to a byte, d."""
    powers = torch.tensor((1, 3, 9, 27, 81), dtype=torch.uint8, device=b.device).view(1, 5, 1)
    parts = (b[:, None, :32] * powers, b[:, None, 32:48] * powers, b[:, None, 48:52] * powers[:, :4])
    digits = torch.cat([part.flatten(1) for part in parts], 1)
    return Fields((digits.to(torch.int16) * 3 >> 8).to(torch.uint8), half(b, 52), None, 1, 2)


def tq2_0(b: Tensor) -> Fields:
    """256: ternary digits in 2-bit fields, d."""
    return Fields(runs(b[:, :64], 32, 2), half(b, 64), None, 1, 2)
