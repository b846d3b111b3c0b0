"""What the Triton kernels share: where a token's K lies, the score of a tile, and tile sizes by shape."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Launch shape of a kernel: query rows and keys per tile, warps, and loads in flight."""

    rows: int
    keys: int
    warps: int
    stages: int


def decode_tiles(group: int, head_dim: int, element_bytes: int) -> Tiles:
    """A program works on the query heads of one KV head (at most 32 at once); tl.dot wants 16 rows or more."""
    rows = min(32, max(16, triton.next_power_of_2(group)))
    wide = triton.next_power_of_2(head_dim) * element_bytes
    return Tiles(rows, 64 if wide <= 256 else 32, 4, 3 if wide <= 256 else 2)


def prefill_tiles(head_dim: int, element_bytes: int) -> Tiles:
    """Tiles whose K and V stay under the 99 KiB of shared memory that consumer GPUs have (tests compile and check)."""
    wide = triton.next_power_of_2(head_dim) * element_bytes
    if wide <= 256:
        return Tiles(128 if element_bytes == 2 else 64, 64, 8 if element_bytes == 2 else 4, 2)
    return Tiles(64, 32, 4, 2) if wide <= 512 else Tiles(32, 16, 4, 2)


@triton.jit
def key_rows(
    table_row: Any, positions: Any, seen: Any, kv_head: Any,
    KV_HEADS: tl.constexpr, PAGE: tl.constexpr, HEAD_DIM: tl.constexpr,
) -> Any:  # fmt: skip
    """Element offset of the K row of each position; its V row is KV_HEADS · PAGE · HEAD_DIM further on."""
    page = tl.load(table_row + positions // PAGE, mask=seen, other=0).to(tl.int64)
    return ((page * (2 * KV_HEADS) + kv_head) * PAGE + positions % PAGE) * HEAD_DIM


@triton.jit
def load_rows(
    cache: Any, rows: Any, seen: Any, dims: Any, like: Any, HEAD_DIM: tl.constexpr, UPCAST: tl.constexpr
) -> Any:
    """K or V rows [n, padded head_dim] in the type of ``like``; zeros where not seen, whatever the pages hold there."""
    tile = tl.load(cache + rows[:, None] + dims[None, :], mask=seen[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)
    return tile.to(tl.float32) if UPCAST else tile.to(like.dtype)


@triton.jit
def score(query: Any, keys: Any, scale: Any, soft_cap: Any, SOFT_CAP: tl.constexpr) -> Any:
    """Scores in base 2 (multiplied by log2 e), soft cap · tanh(score / soft cap) applied where there is one."""
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
    if SOFT_CAP:
        scores = soft_cap * (2.0 * tl.sigmoid(2.0 * scores / soft_cap) - 1.0)
    return scores * LOG2_E


@triton.jit
def fold(scores: Any, values: Any, best: Any, total: Any, sum_pv: Any) -> Any:
    """One turn of the online softmax: the running maximum, Σ p and Σ p·v with one more tile of keys in them."""
    higher = tl.maximum(best, tl.max(scores, 1))
    # A row that has seen no key yet keeps -inf; 0 stands in so that -inf - -inf does not make NaN.
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(scores - level[:, None])
    shrink = tl.exp2(best - level)
    total = total * shrink + tl.sum(weights, 1)
    sum_pv = sum_pv * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return higher, total, sum_pv
