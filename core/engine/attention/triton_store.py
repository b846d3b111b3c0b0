"""Triton kernel that writes a step's K and V into their slots."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_kernel(
    k: tl.tensor, v: tl.tensor, cache: tl.tensor, slots: tl.tensor, k_stride: tl.tensor, v_stride: tl.tensor,
    KV_HEADS: tl.constexpr, PAGE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Program (row, part): ``BLOCK`` elements of one row's K and V [KV_HEADS · HEAD_DIM]; slot −1 stores nothing."""
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
    tl.store(cache + target, tl.load(k + row * k_stride + element, mask=inside).to(kind), mask=inside)
    target += KV_HEADS * PAGE * HEAD_DIM
    tl.store(cache + target, tl.load(v + row * v_stride + element, mask=inside).to(kind), mask=inside)
