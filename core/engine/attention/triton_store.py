"""Triton kernel that writes a step's K and V into their slots."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_kernel(
    k: tl.tensor, v: tl.tensor, cache: tl.tensor, slots: tl.tensor, k_stride: tl.tensor, v_stride: tl.tensor,
    k_scale: tl.tensor, v_scale: tl.tensor,
    KV_HEADS: tl.constexpr, PAGE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr, LARGEST: tl.constexpr,
) -> None:  # fmt: skip
    """Program (row, part): ``BLOCK`` elements of one row's K and V [KV_HEADS · HEAD_DIM]; slot −1 stores nothing.

    ``LARGEST`` > 0: they are divided by the scales and saturate there.
    """
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < KV_HEADS * HEAD_DIM
    head, dim = element // HEAD_DIM, element % HEAD_DIM
    page, offset = slot // PAGE, slot % PAGE
    target = ((page * (2 * KV_HEADS) + head) * PAGE + offset) * HEAD_DIM + dim
    kind = cache.dtype.element_ty
    keys = tl.load(k + row * k_stride + element, mask=inside)
    values = tl.load(v + row * v_stride + element, mask=inside)
    if LARGEST > 0:
        keys, values = keys.to(tl.float32) / k_scale, values.to(tl.float32) / v_scale
        # Comparisons that leave NaN alone.
        keys = tl.where(keys > LARGEST, LARGEST, tl.where(keys < -LARGEST, -LARGEST, keys))
        values = tl.where(values > LARGEST, LARGEST, tl.where(values < -LARGEST, -LARGEST, values))
    tl.store(cache + target, keys.to(kind), mask=inside)
    target += KV_HEADS * PAGE * HEAD_DIM
    tl.store(cache + target, values.to(kind), mask=inside)
