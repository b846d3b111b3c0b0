"""Canonical weights whose elements are entries of one small table: nf4, fp4, e2m1, IQ4, small floats."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.layers.packed_integer import pack_fields, unpack_fields
from engine.plugin.contracts.packed import PackedWeight

#: What a scale may be kept in.
SCALES = (torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e8m0fnu)
#: The values of a 4-bit float with 2 exponent bits and 1 mantissa bit, by code (bit 3: sign).
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


class Codebook(PackedWeight):
    """weight[o, i] = table[code[o, i]] · scale[o, i // group] · outer[o].

    ``codes``: 4 bits: uint8 [outputs, ⌈inputs / 2⌉], two to a byte, the even input in the low half; 8 bits: uint8 [outputs, inputs].
    ``table``: float32 [2^bits]. ``scale``: [outputs, ⌈inputs / group⌉] in one of SCALES. ``outer``: float32 [outputs]; None: 1.
    """

    layout = "codebook"

    def __init__(
        self, codes: Tensor, table: Tensor, scale: Tensor, *,
        bits: int, inputs: int, group: int, outer: Tensor | None = None, exclusive: bool = False,
    ) -> None:  # fmt: skip
        self.codes, self.table, self.scale, self.outer = codes, table, scale, outer
        self.bits, self.group = bits, group
        self.exclusive = exclusive
        self.outputs, self.inputs = len(codes), inputs
        self._check()

    def _check(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits is {self.bits}; it must be 4 or 8")
        if self.group < 1:
            raise ValueError(f"group is {self.group}; it must be positive")
        columns = -(-self.inputs * self.bits // 8)
        if self.codes.dim() != 2 or self.codes.dtype != torch.uint8 or self.codes.shape[1] != columns:
            raise ValueError(f"codes are {self.codes.dtype} {list(self.codes.shape)}; {columns} columns of torch.uint8 are needed")
        if self.table.dtype != torch.float32 or tuple(self.table.shape) != (1 << self.bits,):
            raise ValueError(f"table is {self.table.dtype} {list(self.table.shape)}; torch.float32 [{1 << self.bits}] is needed")
        groups = [self.outputs, -(-self.inputs // self.group)]
        if self.scale.dtype not in SCALES or list(self.scale.shape) != groups:
            raise ValueError(f"scale is {self.scale.dtype} {list(self.scale.shape)}; floats {groups} are needed")
        if self.outer is not None and (self.outer.dtype != torch.float32 or list(self.outer.shape) != [self.outputs]):
            raise ValueError(f"outer is {self.outer.dtype} {list(self.outer.shape)}; torch.float32 [{self.outputs}] is needed")

    @classmethod
    def of(
        cls, codes: Tensor, table: Tensor, scale: Tensor, *, bits: int, group: int, outer: Tensor | None = None
    ) -> Codebook:
        """From unpacked codes [outputs, inputs], one integer each."""
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
            raise ValueError(f"codes of {bits} bits must be in [0, {(1 << bits) - 1}]")
        bytes_ = codes.to(torch.uint8)
        packed = pack_fields(bytes_, 4) if bits == 4 else bytes_
        return cls(packed, table, scale, bits=bits, inputs=codes.shape[1], group=group, outer=outer, exclusive=True)

    def unpacked(self) -> Tensor:
        """The codes, uint8 [outputs, inputs]."""
        return self._codes(self.codes)

    def expanded_scale(self) -> Tensor:
        """float32 [outputs, ⌈inputs / group⌉], ``outer`` multiplied in."""
        return self._scale(slice(None))

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32, then rounded to ``dtype``."""
        weight = self.table[self._codes(self.codes[which]).int()]
        groups = torch.arange(self.inputs, device=weight.device) // self.group
        return (weight * self._scale(which)[:, groups]).to(dtype)

    def nbytes(self) -> int:
        """Bytes of codes, table and scales."""
        return sum(part.nbytes for part in (self.codes, self.table, self.scale, self.outer) if part is not None)

    def _codes(self, packed: Tensor) -> Tensor:
        return unpack_fields(packed, self.inputs, 4) if self.bits == 4 else packed

    def _scale(self, which: slice | Tensor) -> Tensor:
        small = self.scale.element_size() == 1
        scale = (self.scale.view(torch.uint8)[which].view(self.scale.dtype) if small else self.scale[which]).float()
        return scale if self.outer is None else scale * self.outer[which].unsqueeze(-1)
