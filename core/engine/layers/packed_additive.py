"""Canonical weights that are sums of vectors from several codebooks (AQLM)."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.plugin.contracts.packed import PackedWeight


class AdditiveCodebooks(PackedWeight):
    """Vectors of ``wide`` inputs (by ``tall`` outputs) are sums of one vector from each of C codebooks, times a scale per output.

    weight[o, g·wide + i] = scales[o // tall] · Σ_c codebooks[c, code[o // tall, g, c], o % tall, i].
    ``codes``: uint8, int16 or int32 [outputs / tall, inputs / wide, C]; int16 is read modulo 2^16. ``codebooks``: floats
    [C, entries, tall, wide]. ``scales``: floats [outputs / tall]. A fused layer whose parts have codebooks of their own is
    :class:`~engine.layers.packed_composite.Joined`.
    """

    layout = "additive"

    def __init__(self, codes: Tensor, codebooks: Tensor, scales: Tensor, *, exclusive: bool = False) -> None:
        if codes.dim() != 3 or codes.dtype not in (torch.uint8, torch.int16, torch.int32):
            raise ValueError(f"codes are {codes.dtype} {list(codes.shape)}; uint8, int16 or int32 [outputs, groups, codebooks] is needed")
        if codebooks.dim() != 4 or len(codebooks) != codes.shape[2] or not codebooks.is_floating_point():
            shape = list(codebooks.shape)
            raise ValueError(f"codebooks are {codebooks.dtype} {shape}; floats [{codes.shape[2]}, entries, tall, wide] are needed")
        if tuple(scales.shape) != (len(codes),) or not scales.is_floating_point():
            raise ValueError(f"scales are {scales.dtype} {list(scales.shape)}; floats [{len(codes)}] are needed")
        self.codes, self.codebooks, self.scales = codes, codebooks, scales
        self.exclusive = exclusive
        _, self.entries, self.tall, self.wide = codebooks.shape
        self.outputs, self.inputs = len(codes) * self.tall, codes.shape[1] * self.wide
        if codes.numel() and not 0 <= int(self.indices(codes).min()) <= int(self.indices(codes).max()) < self.entries:
            raise ValueError(f"codes must be in [0, {self.entries - 1}]")

    def indices(self, codes: Tensor) -> Tensor:
        """Codes as indices into a codebook."""
        return codes.int() & 0xFFFF if codes.dtype == torch.int16 else codes.int()

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        numbers = torch.arange(self.outputs, device=self.codes.device)[which]
        tall, inside = numbers // self.tall, numbers % self.tall
        indices = self.indices(self.codes[tall])
        total = torch.zeros((len(numbers), indices.shape[1], self.wide), device=self.codes.device)
        for c, book in enumerate(self.codebooks):
            total += book[indices[..., c], inside.unsqueeze(-1)].float()
        return (total.flatten(1) * self.scales.float()[tall].unsqueeze(-1)).to(dtype)

    def nbytes(self) -> int:
        """Bytes of codes, codebooks and scales."""
        return self.codes.nbytes + self.codebooks.nbytes + self.scales.nbytes
