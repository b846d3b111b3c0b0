"""Triton kernels that multiply by quantized weights as they are kept: integers, 8-bit floats and codes with scales."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

#: What a weight's bytes are: ``KIND`` of the kernel.
INT4, INT8, E4M3, E5M2, CODES4, CODES8 = range(6)


@triton.jit
def decode(bits: tl.tensor, table: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """Bytes, or halves of them, as float32 without their scale. Of 8-bit floats the bits are moved to a float32's, which works on
    GPUs that have no such type.
    """
    if KIND == 0:
        return bits.to(tl.float32) - 8.0
    if KIND == 1:
        return bits.to(tl.float32)
    if KIND == 2:
        size = bits.to(tl.int32) & 0x7F
        value = (size << 20).to(tl.float32, bitcast=True) * 1.329227995784916e36
        value = tl.where(size == 0x7F, float("nan"), value)
        return tl.where(bits >= 128, -value, value)
    if KIND == 3:
        size = bits.to(tl.int32) & 0x7F
        value = (size << 21).to(tl.float32, bitcast=True) * 5.192296858534828e33
        value = tl.where(size == 0x7C, float("inf"), tl.where(size > 0x7C, float("nan"), value))
        return tl.where(bits >= 128, -value, value)
    return tl.load(table + bits.to(tl.int32))


@triton.jit
def linear_kernel(
    x: tl.tensor, weight: tl.tensor, scale: tl.tensor, shift: tl.tensor, table: tl.tensor, outer: tl.tensor, bias: tl.tensor,
    out: tl.tensor, rows: tl.tensor, inputs: tl.tensor, outputs: tl.tensor, length: tl.tensor, x_stride: tl.tensor,
    weight_stride: tl.tensor, scale_stride: tl.tensor, group: tl.tensor, scale_rows: tl.tensor,
    KIND: tl.constexpr, SHIFT: tl.constexpr, OUTER: tl.constexpr, BIAS: tl.constexpr, SPLIT: tl.constexpr, HALVES: tl.constexpr,
    ROWS: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Program (outputs, rows, split): a tile of x · Wᵀ over ``length`` inputs, which INS divides as it divides ``group``.

    SPLIT: the sums go to ``out`` [splits, rows, outputs] as float32, for :func:`sum_kernel`; else the finished result to ``out``
    [rows, outputs]. Values are multiplied unscaled, exact in 16 bits but for codes; scales join in float32.
    """
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    first = tl.program_id(2) * length
    real_row, real_column = row < rows, column < outputs
    total = tl.zeros([ROWS, OUTS], tl.float32)
    x_row = x + row.to(tl.int64)[:, None] * x_stride
    weight_row = weight + column.to(tl.int64)[:, None] * weight_stride
    scale_row = (column // scale_rows).to(tl.int64) * scale_stride
    for start in range(first, tl.minimum(first + length, inputs), INS):
        place = start + tl.arange(0, INS)
        tile = tl.load(x_row + place[None, :], mask=real_row[:, None] & (place < inputs)[None, :], other=0.0)
        if UPCAST:
            tile = tile.to(tl.float32)
        if HALVES:
            pair = start // 2 + tl.arange(0, INS // 2)
            both = tl.load(weight_row + pair[None, :], mask=real_column[:, None] & (pair < weight_stride)[None, :], other=0)
            bits = tl.interleave(both & 15, both >> 4)
        else:
            bits = tl.load(weight_row + place[None, :], mask=real_column[:, None] & (place < inputs)[None, :], other=0)
        values = decode(bits, table, KIND).to(tile.dtype)
        piece = tl.dot(tile, tl.trans(values), input_precision="ieee")
        at = scale_row + start // group
        total += piece * tl.load(scale + at, mask=real_column, other=0.0).to(tl.float32)[None, :]
        if SHIFT:
            shifts = tl.load(shift + at, mask=real_column, other=0.0).to(tl.float32)
            total += tl.sum(tile.to(tl.float32), 1)[:, None] * shifts[None, :]
    if OUTER:
        total *= tl.load(outer + column, mask=real_column, other=0.0)[None, :]
    if BIAS:
        total += tl.load(bias + column, mask=real_column, other=0.0).to(tl.float32)[None, :]
    target = (tl.program_id(2).to(tl.int64) * rows + row)[:, None] * outputs + column[None, :]
    if not SPLIT:
        target = row.to(tl.int64)[:, None] * outputs + column[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=real_row[:, None] & real_column[None, :])


@triton.jit
def sum_kernel(
    sums: tl.tensor, bias: tl.tensor, out: tl.tensor, size: tl.tensor, outputs: tl.tensor, splits: tl.tensor,
    BIAS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Program: BLOCK elements of [rows, outputs], the sum of the splits in their order, plus the bias."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = place < size
    total = tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        total += tl.load(sums + tl.cast(split, tl.int64) * size + place, mask=real, other=0.0)
    if BIAS:
        total += tl.load(bias + place % outputs, mask=real, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=real)
