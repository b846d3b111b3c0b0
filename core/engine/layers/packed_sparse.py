"""Canonical 2:4 sparse weights: of four neighbouring inputs two are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.layers.packed_integer import pack_fields, unpack_fields
from engine.plugin.contracts.packed import PackedWeight


class Sparse24(PackedWeight):
    """weight[o, 4g + position[o, 2g + j]] = kept[o, 2g + j] for j in 0, 1; the rest is 0.

    ``kept``: any packed weight of ``outputs`` × ``inputs / 2``. ``positions``: uint8 [outputs, ⌈inputs / 8⌉]: 2-bit fields, one per kept
    element, the first in the lowest bits.
    """

    layout = "sparse24"

    def __init__(self, kept: PackedWeight, positions: Tensor, *, exclusive: bool = False) -> None:
        if kept.inputs % 2:
            raise ValueError(f"kept has {kept.inputs} inputs; an even number is needed")
        wanted = [kept.outputs, -(-kept.inputs // 4)]
        if positions.dtype != torch.uint8 or list(positions.shape) != wanted:
            raise ValueError(f"positions are {positions.dtype} {list(positions.shape)}; torch.uint8 {wanted} is needed")
        self.kept, self.positions = kept, positions
        self.exclusive = exclusive
        self.outputs, self.inputs = kept.outputs, 2 * kept.inputs

    @classmethod
    def of(cls, kept: PackedWeight, positions: Tensor) -> Sparse24:
        """From unpacked positions [outputs, inputs / 2] in 0…3, two different ones per four inputs."""
        if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) <= 3:
            raise ValueError("positions must be in [0, 3]")
        if bool((positions[:, 0::2] == positions[:, 1::2]).any()):
            raise ValueError("positions name one input twice")
        return cls(kept, pack_fields(positions.to(torch.uint8), 2), exclusive=True)

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """The kept values at their places."""
        kept = self.kept.take(which, dtype)
        places = unpack_fields(self.positions[which], self.kept.inputs, 2).long()
        places += torch.arange(self.kept.inputs, device=places.device) // 2 * 4
        return torch.zeros((len(kept), self.inputs), dtype=dtype, device=kept.device).scatter_(1, places, kept)

    def nbytes(self) -> int:
        """Bytes of the kept values and their positions."""
        return self.kept.nbytes() + self.positions.nbytes
