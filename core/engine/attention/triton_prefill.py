"""Triton kernel for sequences with several query rows: causal attention over their pages, earlier context included."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from engine.attention.triton_tiles import LOG2_E, fold, key_rows, load_rows, score


@triton.jit
def prefill_kernel(
    q: tl.tensor, out: tl.tensor, cache: tl.tensor, table: tl.tensor, query_start: tl.tensor, seq_lens: tl.tensor,
    sinks: tl.tensor, scale: tl.tensor, soft_cap: tl.tensor, q_stride: tl.tensor, table_stride: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, MEMBERS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr,
    PAGE: tl.constexpr, WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, SINKS: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Program (query block, KV head × part of its query heads, sequence).

    A tile has ``ROWS`` rows: ROWS / MEMBERS tokens times ``MEMBERS`` query heads of one KV head, so that each K and V
    is read once for all of them. Sequences of fewer than two query rows do nothing: they are the decode kernel's.
    """
    tokens: tl.constexpr = ROWS // MEMBERS
    sequence = tl.program_id(2)
    row = tl.load(query_start + sequence)
    count = tl.load(query_start + sequence + 1) - row
    block = tl.program_id(0) * tokens
    length = tl.load(seq_lens + sequence)
    if count < 2 or block >= count or length == 0:
        return
    parts: tl.constexpr = (GROUP + MEMBERS - 1) // MEMBERS
    kv_head = tl.program_id(1) // parts
    lane = tl.arange(0, ROWS)
    token = block + lane // MEMBERS
    member = tl.program_id(1) % parts * MEMBERS + lane % MEMBERS
    head = kv_head * GROUP + member
    position = length - count + token
    dims = tl.arange(0, DIMS)
    real = ((member < GROUP) & (token < count))[:, None] & (dims < HEAD_DIM)[None, :]
    query_rows = (row + token).to(tl.int64)[:, None] * q_stride + head[:, None] * HEAD_DIM
    query = tl.load(q + query_rows + dims[None, :], mask=real, other=0.0)
    if UPCAST:
        query = query.to(tl.float32)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if SINKS:
        best = tl.load(sinks + head, mask=member < GROUP, other=0.0).to(tl.float32) * LOG2_E
        total += 1.0
    sum_pv = tl.zeros([ROWS, DIMS], tl.float32)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - count + block - WINDOW + 1, 0)
    end = tl.minimum(length - count + block + tokens, length)
    table_row = table + sequence.to(tl.int64) * table_stride
    for start in range(first, end, KEYS):
        positions = start + tl.arange(0, KEYS)
        inside = positions < end
        rows = key_rows(table_row, positions, inside, kv_head, KV_HEADS, PAGE, HEAD_DIM)
        keys = load_rows(cache, rows, inside, dims, query, HEAD_DIM, UPCAST)
        values = load_rows(cache, rows + KV_HEADS * PAGE * HEAD_DIM, inside, dims, query, HEAD_DIM, UPCAST)
        seen = inside[None, :] & (positions[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (positions[None, :] > position[:, None] - WINDOW)
        scores = tl.where(seen, score(query, keys, scale, soft_cap, SOFT_CAP), float("-inf"))
        best, total, sum_pv = fold(scores, values, best, total, sum_pv)
    result = sum_pv / tl.where(total > 0.0, total, 1.0)[:, None]
    target = ((row + token).to(tl.int64)[:, None] * (KV_HEADS * GROUP) + head[:, None]) * HEAD_DIM + dims[None, :]
    tl.store(out + target, result.to(out.dtype.element_ty), mask=real)
