"""Canonical integers whose scales run along the outputs: outputs share them, inputs do not (hqq's axis 0)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.layers.packed_integer import PLANES, pack_planes, row_bytes, unpack_planes
from engine.plugin.contracts.packed import PackedWeight


class SharedScales(PackedWeight):
    """weight[o, i] = scale[rows[o], i] · (code[o, i] − zero[rows[o], i]), codes unsigned.

    ``codes``: uint8 [outputs, bytes]: 8 bits as they are, fewer in the planes of
    :class:`~engine.layers.packed_integer.GroupedInteger`. ``scale`` and ``zero``: floats [shared, inputs]; ``rows``: int32 [outputs].
    """

    layout = "shared_scales"

    def __init__(
        self, codes: Tensor, scale: Tensor, zero: Tensor, rows: Tensor, *, bits: int, inputs: int, exclusive: bool = False
    ) -> None:
        self.codes, self.scale, self.zero, self.rows = codes, scale, zero, rows
        self.bits, self.exclusive = bits, exclusive
        self.outputs, self.inputs = len(codes), inputs
        self._check()

    def _check(self) -> None:
        if self.bits != 8 and self.bits not in PLANES:
            raise ValueError(f"bits is {self.bits}; it must be 1 to 8")
        width = row_bytes(self.bits, self.inputs)
        if self.codes.dtype != torch.uint8 or self.codes.dim() != 2 or self.codes.shape[1] != width:
            raise ValueError(f"codes are {self.codes.dtype} {list(self.codes.shape)}; {width} columns of torch.uint8 are needed")
        shared = [len(self.scale), self.inputs]
        for name, tensor in (("scale", self.scale), ("zero", self.zero)):
            if list(tensor.shape) != shared or not tensor.is_floating_point():
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; floats {shared} are needed")
        if self.rows.dtype != torch.int32 or list(self.rows.shape) != [self.outputs]:
            raise ValueError(f"rows are {self.rows.dtype} {list(self.rows.shape)}; torch.int32 [{self.outputs}] is needed")
        if self.rows.numel() and not 0 <= int(self.rows.min()) <= int(self.rows.max()) < shared[0]:
            raise ValueError(f"rows must be in [0, {shared[0] - 1}]")

    @classmethod
    def of(cls, codes: Tensor, scale: Tensor, zero: Tensor, rows: Tensor, *, bits: int) -> SharedScales:
        """From unpacked codes, uint8 [outputs, inputs]."""
        packed = codes.contiguous() if bits == 8 else pack_planes(codes.to(torch.int16) - (1 << (bits - 1)), bits)
        return cls(packed, scale, zero, rows, bits=bits, inputs=codes.shape[1], exclusive=True)

    def unpacked(self, which: slice | Tensor) -> Tensor:
        """Codes of those outputs: uint8 [n, inputs]."""
        codes = self.codes[which]
        return codes if self.bits == 8 else (unpack_planes(codes, self.inputs, self.bits) + (1 << (self.bits - 1))).to(torch.uint8)

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        rows = self.rows[which]
        weight = self.unpacked(which).float()
        weight -= self.zero[rows].float()
        weight *= self.scale[rows].float()
        return weight.to(dtype)

    def share(self, outputs: Sequence[tuple[int, int]], first: int, count: int) -> SharedScales:
        """Those outputs (start and size of each piece), one piece below the other, of ``count`` inputs from ``first`` on."""
        pieces = [slice(start, start + size) for start, size in outputs]
        inputs = slice(first, first + count)
        kept, rows = torch.cat([self.rows[piece] for piece in pieces]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        codes = torch.cat([self.unpacked(piece)[:, inputs] for piece in pieces])
        return SharedScales.of(
            codes, self.scale[kept.long(), inputs].contiguous(), self.zero[kept.long(), inputs].contiguous(), rows.int(), bits=self.bits
        )

    def nbytes(self) -> int:
        """Bytes of codes, scales, zero points and rows."""
        return self.codes.nbytes + self.scale.nbytes + self.zero.nbytes + self.rows.nbytes
