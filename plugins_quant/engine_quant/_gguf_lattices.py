"""GGUF blocks whose codes are points of a lattice (IQ1 to IQ3): each type's own way to float32 (layouts: ggml-common.h)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ._gguf_grids import GRIDS
from ._gguf_integers import half, nibbles, runs


@lru_cache(maxsize=16)
def grid(name: str, device: torch.device) -> Tensor:
    """float32 [codes, coordinates]."""
    return torch.tensor(GRIDS[name].points(), dtype=torch.float32, device=device)


@lru_cache(maxsize=4)
def parities(device: torch.device) -> Tensor:
    """float32 [128, 8]: seven signs by their bits (1: negative); the eighth makes the number of negative ones even."""
    codes = torch.arange(128, device=device)
    bits = (codes.unsqueeze(1) >> torch.arange(7, device=device)) & 1
    bits = torch.cat((bits, bits.sum(1, keepdim=True) & 1), 1)
    return 1.0 - 2.0 * bits


def signs(data: Tensor) -> Tensor:
    """[n, bytes] → float32 [n, 8 · bytes]: -1 where the bit is set."""
    shifts = torch.arange(8, dtype=torch.uint8, device=data.device)
    return 1.0 - 2.0 * ((data.unsqueeze(-1) >> shifts) & 1).flatten(1).float()


def words(blocks: Tensor, start: int, count: int, size: int) -> Tensor:
    """int64 [n, count]: unsigned little-endian numbers of ``size`` bytes from byte ``start``."""
    data = blocks[:, start : start + count * size].reshape(len(blocks), count, size).long()
    return (data << (8 * torch.arange(size, device=blocks.device))).sum(-1)


def _scaled(scale: Tensor, points: Tensor, sign: Tensor) -> Tensor:
    """scale [n, groups] · points and signs of [n, 256] elements in all."""
    wide = points.reshape(len(scale), scale.shape[1], -1)
    return (scale.unsqueeze(-1) * wide * sign.reshape(wide.shape)).flatten(1)


def _sevens(numbers: Tensor) -> Tensor:
    """The four 7-bit sign codes in the low bits of 32-bit numbers [n, 8] → float32 [n, 256]."""
    codes = (numbers.unsqueeze(-1) >> torch.tensor((0, 7, 14, 21), device=numbers.device)) & 127
    return parities(numbers.device)[codes].flatten(1)


def iq2_xxs(b: Tensor) -> Tensor:
    """d; per 32: four codes of 8 bits, then signs and a 4-bit scale in 32."""
    numbers = words(b, 2, 16, 4)[:, 1::2]
    codes = b[:, 2:66].reshape(len(b), 8, 8)[:, :, :4].flatten(1)
    scale = half(b, 0).float() * (0.5 + (numbers >> 28).float()) * 0.25
    return _scaled(scale, grid("iq2_xxs", b.device)[codes.long()], _sevens(numbers))


def _pairs(b: Tensor, start: int) -> Tensor:
    """4-bit numbers [n, 16] of the eight bytes at ``start``, each byte's low half first."""
    return runs(b[:, start : start + 8], 1, 4).float()


def iq2_xs(b: Tensor) -> Tensor:
    """d; per 8: a code of 9 bits and 7 signs; 4-bit scales per 16."""
    codes = words(b, 2, 32, 2)
    scale = half(b, 0).float() * (0.5 + _pairs(b, 66)) * 0.25
    return _scaled(scale, grid("iq2_xs", b.device)[codes & 511], parities(b.device)[codes >> 9])


def iq2_s(b: Tensor) -> Tensor:
    """d; per 8: a code of 8 + 2 bits and 8 signs; 4-bit scales per 16."""
    codes = b[:, 2:34].long() | (runs(b[:, 66:74], 1, 2).long() << 8)
    scale = half(b, 0).float() * (0.5 + _pairs(b, 74)) * 0.25
    return _scaled(scale, grid("iq2_s", b.device)[codes], signs(b[:, 34:66]))


def iq3_xxs(b: Tensor) -> Tensor:
    """d; per 4: a code of 8 bits; per 32: signs and a 4-bit scale in 32 bits."""
    numbers = words(b, 66, 8, 4)
    scale = half(b, 0).float() * (0.5 + (numbers >> 28).float()) * 0.5
    return _scaled(scale, grid("iq3_xxs", b.device)[b[:, 2:66].long()], _sevens(numbers))


def iq3_s(b: Tensor) -> Tensor:
    """d; per 4: a code of 8 + 1 bits; 8 signs per 8; 4-bit scales per 32."""
    codes = b[:, 2:66].long() | (runs(b[:, 66:74], 1, 1).long() << 8)
    scale = half(b, 0).float() * (1 + 2 * runs(b[:, 106:110], 1, 4).float())
    return _scaled(scale, grid("iq3_s", b.device)[codes], signs(b[:, 74:106]))


def iq1_s(b: Tensor) -> Tensor:
    """d; per 8: a code of 8 + 3 bits; per 32: a 3-bit scale and the sign of what is added to all."""
    high = words(b, 34, 8, 2)
    codes = b[:, 2:34].long() | (((high.unsqueeze(-1) >> torch.tensor((0, 3, 6, 9), device=b.device)) & 7) << 8).flatten(1)
    scale = half(b, 0).float() * (2 * ((high >> 12) & 7) + 1).float()
    added = torch.where(high & 0x8000 == 0, 0.125, -0.125)
    points = grid("iq1_s", b.device)[codes].reshape(len(b), 8, 32)
    return (scale.unsqueeze(-1) * (points + added.unsqueeze(-1))).flatten(1)


def iq1_m_scale(b: Tensor) -> Tensor:
    """d, float16 [n, 1]: its bits stand in four parts, in the upper bits of the words that hold the scales."""
    upper = (words(b, 48, 4, 2) >> 12) << torch.tensor((0, 4, 8, 12), device=b.device)
    return upper.sum(1, keepdim=True).to(torch.int32).to(torch.int16).view(torch.float16)


def iq1_m(b: Tensor) -> Tensor:
    """Per 8: a code of 8 + 3 bits and the sign of what is added; 3-bit scales per 16; d in the upper bits of the scales."""
    scales = words(b, 48, 4, 2)
    d = iq1_m_scale(b).float()
    small = ((scales.unsqueeze(-1) >> torch.tensor((0, 3, 6, 9), device=b.device)) & 7).flatten(1)
    high = runs(b[:, 32:48], 1, 4).long()
    codes = b[:, :32].long() | ((high & 7) << 8)
    added = torch.where(high & 8 == 0, 0.125, -0.125)
    points = grid("iq1_s", b.device)[codes] + added.unsqueeze(-1)
    scale = d * (2 * small + 1).float()
    return (scale.unsqueeze(-1) * points.reshape(len(b), 16, 16)).flatten(1)


#: The entries of IQ4's table by code.
IQ4_TABLE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def iq4_nl(b: Tensor) -> tuple[Tensor, Tensor]:
    """32: d, nibbles. Codes uint8 [n, 32] and scales [n, 1]."""
    return nibbles(b[:, 2:18]), half(b, 0)


def iq4_xs(b: Tensor) -> tuple[Tensor, Tensor]:
    """256: d, 6-bit scales around 32, nibbles in runs of 16. Codes uint8 [n, 256] and scales [n, 8]."""
    high = (words(b, 2, 1, 2) >> torch.arange(0, 16, 2, device=b.device)) & 3
    scale = (runs(b[:, 4:8], 1, 4).long() | (high << 4)) - 32
    return runs(b[:, 8:136], 16, 4), half(b, 0).float() * scale.float()


def mxfp4(b: Tensor) -> tuple[Tensor, Tensor]:
    """32: a power of two, nibbles. Codes uint8 [n, 32] and scales float8_e8m0fnu [n, 1]."""
    return nibbles(b[:, 1:17]), b[:, :1].contiguous().view(torch.float8_e8m0fnu)
