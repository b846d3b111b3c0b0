"""Triton kernels for one query row per sequence: keys split over programs, then merged (flash-decoding)."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from engine.attention.triton_tiles import LOG2_E, fold, key_rows, load_rows, score

#: Keys per program. Fixed, so that a sequence is cut by its own length alone and its bits do not depend on batch mates.
SPLIT = 512
#: Splits that the merging program reads at once.
MERGE = 16


@triton.jit
def decode_kernel(
    q: tl.tensor, cache: tl.tensor, table: tl.tensor, query_start: tl.tensor, seq_lens: tl.tensor,
    sums: tl.tensor, maxima: tl.tensor, totals: tl.tensor, scale: tl.tensor, soft_cap: tl.tensor,
    q_stride: tl.tensor, table_stride: tl.tensor, splits: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr,
    PAGE: tl.constexpr, WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, LENGTH: tl.constexpr, KEYS: tl.constexpr,
    UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Program (sequence, KV head × part of its query heads, split): Σ p·v, the maximum and Σ p over ``LENGTH`` keys.

    Scores are kept in base 2. Sequences with another number of query rows, and splits beyond the length, do nothing.
    """
    sequence, split = tl.program_id(0), tl.program_id(2)
    row = tl.load(query_start + sequence)
    if tl.load(query_start + sequence + 1) - row != 1:
        return
    length = tl.load(seq_lens + sequence)
    first = split * LENGTH
    if WINDOW > 0:
        first += tl.maximum(length - WINDOW, 0)
    if first >= length:
        return
    parts: tl.constexpr = (GROUP + ROWS - 1) // ROWS
    kv_head = tl.program_id(1) // parts
    member = tl.program_id(1) % parts * ROWS + tl.arange(0, ROWS)
    head = kv_head * GROUP + member
    dims = tl.arange(0, DIMS)
    real = (member < GROUP)[:, None] & (dims < HEAD_DIM)[None, :]
    query = tl.load(q + row.to(tl.int64) * q_stride + head[:, None] * HEAD_DIM + dims[None, :], mask=real, other=0.0)
    if UPCAST:
        query = query.to(tl.float32)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sum_pv = tl.zeros([ROWS, DIMS], tl.float32)
    table_row = table + sequence.to(tl.int64) * table_stride
    for start in range(first, tl.minimum(first + LENGTH, length), KEYS):
        positions = start + tl.arange(0, KEYS)
        seen = positions < tl.minimum(first + LENGTH, length)
        rows = key_rows(table_row, positions, seen, kv_head, KV_HEADS, PAGE, HEAD_DIM)
        keys = load_rows(cache, rows, seen, dims, query, HEAD_DIM, UPCAST)
        values = load_rows(cache, rows + KV_HEADS * PAGE * HEAD_DIM, seen, dims, query, HEAD_DIM, UPCAST)
        scores = tl.where(seen[None, :], score(query, keys, scale, soft_cap, SOFT_CAP), float("-inf"))
        best, total, sum_pv = fold(scores, values, best, total, sum_pv)
    place = (sequence.to(tl.int64) * (KV_HEADS * GROUP) + head) * splits + split
    tl.store(sums + place[:, None] * HEAD_DIM + dims[None, :], sum_pv, mask=real)
    tl.store(maxima + place, best, mask=member < GROUP)
    tl.store(totals + place, total, mask=member < GROUP)


@triton.jit
def merge_kernel(
    out: tl.tensor, query_start: tl.tensor, seq_lens: tl.tensor, sums: tl.tensor, maxima: tl.tensor,
    totals: tl.tensor, sinks: tl.tensor, splits: tl.tensor,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr,
    LENGTH: tl.constexpr, MERGE: tl.constexpr,
) -> None:  # fmt: skip
    """Program (sequence, head): the splits' partial results → one row of ``out``; zeros for an empty sequence."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    row = tl.load(query_start + sequence)
    if tl.load(query_start + sequence + 1) - row != 1:
        return
    length = tl.load(seq_lens + sequence)
    if WINDOW > 0:
        length = tl.minimum(length, WINDOW)
    count = (length + LENGTH - 1) // LENGTH
    place = (sequence.to(tl.int64) * HEADS + head) * splits
    dims = tl.arange(0, DIMS)
    best = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    if SINKS:
        best = tl.zeros([1], tl.float32) + tl.load(sinks + head).to(tl.float32) * LOG2_E
        total += 1.0
    sum_pv = tl.zeros([DIMS], tl.float32)
    for start in range(0, count, MERGE):
        split = start + tl.arange(0, MERGE)
        there = split < count
        maximum = tl.load(maxima + place + split, mask=there, other=float("-inf"))
        higher = tl.maximum(best, tl.max(maximum, 0))
        part = tl.exp2(maximum - higher)
        shrink = tl.exp2(best - higher)
        total = total * shrink + tl.sum(tl.load(totals + place + split, mask=there, other=0.0) * part, 0)
        tile = tl.load(
            sums + (place + split)[:, None] * HEAD_DIM + dims[None, :],
            mask=there[:, None] & (dims < HEAD_DIM)[None, :], other=0.0,
        )  # fmt: skip
        sum_pv = sum_pv * shrink + tl.sum(tile * part[:, None], 0)
        best = higher
    result = sum_pv / tl.where(total > 0.0, total, 1.0)
    target = (row.to(tl.int64) * HEADS + head) * HEAD_DIM + dims
    tl.store(out + target, result.to(out.dtype.element_ty), mask=dims < HEAD_DIM)
