"""What the Triton kernels share: where a token's K lies, the score of a tile, and tile sizes by shape."""

# mypy: disable-error-code="import-untyped, untyped-decorator"
from __future__ import annotations

from dataclasses import dataclass

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
    """A program works on the query heads of one KV head, 32 at once (16 of the widest); tl.dot wants 16 rows or more."""
    width = triton.next_power_of_2(head_dim) * element_bytes
    rows = min(32 if width <= 512 else 16, max(16, triton.next_power_of_2(group)))
    return Tiles(rows, 64 if width <= 256 else 32 if width <= 512 else 16, 4, 3 if width <= 256 else 2)


def prefill_tiles(head_dim: int, element_bytes: int) -> Tiles:
    """Tiles whose K and V stay under the 99 KiB of shared memory that consumer GPUs have, with (nearly) no spilling."""
    width = triton.next_power_of_2(head_dim) * element_bytes
    if element_bytes <= 2:
        return Tiles(128, 64, 8, 2) if width <= 256 else Tiles(64, 32, 8, 2)
    return Tiles(64, 32, 4, 2) if width <= 256 else Tiles(32, 32, 4, 2) if width <= 512 else Tiles(16, 16, 4, 2)


@triton.jit
def key_rows(
    table_row: tl.tensor, positions: tl.tensor, seen: tl.tensor, kv_head: tl.tensor,
    KV_HEADS: tl.constexpr, PAGE: tl.constexpr, HEAD_DIM: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Element offset of the K row of each position; its V row is KV_HEADS · PAGE · HEAD_DIM further on."""
    page = tl.load(table_row + positions // PAGE, mask=seen, other=0).to(tl.int64)
    return ((page * (2 * KV_HEADS) + kv_head) * PAGE + positions % PAGE) * HEAD_DIM


@triton.jit
def load_rows(
    cache: tl.tensor, rows: tl.tensor, seen: tl.tensor, dims: tl.tensor, like: tl.tensor,
    HEAD_DIM: tl.constexpr, UPCAST: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """K or V rows [n, padded head_dim] in the type of ``like``; zeros where not seen, whatever the pages hold there."""
    tile = tl.load(cache + rows[:, None] + dims[None, :], mask=seen[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)
    return tile.to(tl.float32) if UPCAST else tile.to(like.dtype)


@triton.jit
def score(
    query: tl.tensor, keys: tl.tensor, scale: tl.tensor, soft_cap: tl.tensor, SOFT_CAP: tl.constexpr
) -> tl.tensor:
    """Scores in base 2 (multiplied by log2 e), soft cap · tanh(score / soft cap) applied where there is one."""
    # tf32x3 keeps float32's precision on tensor cores; it means nothing to the 16-bit types.
    scores = tl.dot(query, tl.trans(keys), input_precision="tf32x3") * scale
    if SOFT_CAP:
        scores = soft_cap * (2.0 * tl.sigmoid(2.0 * scores / soft_cap) - 1.0)
    return scores * LOG2_E


@triton.jit
def fold(scores: tl.tensor, values: tl.tensor, best: tl.tensor, total: tl.tensor, sum_pv: tl.tensor) -> tl.tensor:
    """One turn of the online softmax: the running maximum, Σ p and Σ p·v with one more tile of keys in them."""
    higher = tl.maximum(best, tl.max(scores, 1))
    # A row that has seen no key yet keeps -inf; 0 stands in so that -inf - -inf does not make NaN.
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(scores - level[:, None])
    shrink = tl.exp2(best - level)
    total = total * shrink + tl.sum(weights, 1)
    sum_pv = sum_pv * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="tf32x3")
    return higher, total, sum_pv
