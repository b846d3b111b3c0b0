"""The built-in attention for CUDA: Triton kernels over the paged cache, recordable as CUDA graphs."""

# mypy: disable-error-code="import-untyped"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from engine.attention.pages import LARGEST, PagedLayout
from engine.attention.triton_decode import MERGE, SPLIT, decode_kernel, merge_kernel
from engine.attention.triton_prefill import prefill_kernel
from engine.attention.triton_store import store_kernel
from engine.attention.triton_tiles import decode_tiles, prefill_tiles

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.attention import AttentionBatch
    from engine.plugin.facts import AttentionSpec

#: Triton's interpreter computes on bfloat16 as if its bits were integers: everything is widened first where it runs.
INTERPRETING = not isinstance(store_kernel, triton.JITFunction)
STORE_BLOCK = 1024
DTYPES = (torch.float32, torch.float16, torch.bfloat16, *LARGEST)


class TritonAttention(PagedLayout):
    """Paged attention with grouped heads, sliding window, soft cap and sinks, for head dimensions up to 256.

    Nothing here waits for the device or depends on its contents: grids follow from ``max_query_len`` and
    ``max_seq_len``, and programs without work end at once, so a step with ``host`` None can be recorded and replayed
    with other lengths up to those. Sequences of one query row go to the decode kernels, others to the prefill kernel,
    in the same step. A decode result does not depend on batch mates. Decode takes
    4 · heads · (head_dim + 2) · ⌈max_seq_len / 512⌉ bytes of scratch memory per sequence.
    """

    name = "triton paged"
    selects = True

    def supports(self, spec: AttentionSpec, dtype: torch.dtype) -> str | None:
        """None, or why the kernels cannot run that layer."""
        if dtype not in DTYPES:
            return f"the Triton kernels take float32, float16, bfloat16 and 8-bit floats, not {dtype}"
        if dtype == torch.float8_e4m3fn and torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9):
            return "this GPU has no float8_e4m3fn; --kv-cache-dtype fp8_e5m2 works"
        if (spec.k_scale, spec.v_scale) != (1.0, 1.0) and dtype not in LARGEST:
            return f"the Triton kernels scale keys and values of 8 bits alone, not {dtype}"
        if spec.head_dim > 256:
            return f"the Triton kernels take head dimensions up to 256, not {spec.head_dim}"
        if spec.num_heads % spec.num_kv_heads:
            return f"{spec.num_heads} query heads do not divide over {spec.num_kv_heads} KV heads"
        return None

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec,
        sinks: Tensor | None = None, queries: AttentionBatch | None = None,
    ) -> Tensor:
        """See the contract. Rows that belong to no sequence, and rows of empty sequences, come out as zeros."""
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        self.attend_into(out, q, k, v, cache, batch, spec, sinks, queries)
        return out

    def attend_into(
        self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec,
        sinks: Tensor | None = None, queries: AttentionBatch | None = None,
    ) -> None:
        """As ``attend``, into a contiguous ``out`` [T, heads, head_dim] of any float dtype."""
        if k.shape[0]:
            store(k, v, cache, batch, spec)
        if q.shape[0] == 0:
            return
        batch = queries or batch
        shape = _shape(spec, batch, sinks)
        if batch.host is None or 1 in batch.host[0]:
            _decode(out, _packed(q), cache, batch, spec, sinks, shape)
        if batch.max_query_len > 1:
            _prefill(out, _packed(q), cache, batch, spec, sinks, shape)
        if spec.v_scale != 1.0:
            out.mul_(spec.v_scale)


def store(k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec) -> None:
    """Write the rows' K and V [T, kv_heads, head_dim] to their slots; rows of slot −1 are skipped."""
    k, v = _packed(k), _packed(v)
    _, _, kv_heads, page, head_dim = cache.shape
    grid = (batch.slots.shape[0], triton.cdiv(kv_heads * head_dim, STORE_BLOCK))
    store_kernel[grid](
        k, v, cache, batch.slots, k.stride(0), v.stride(0), spec.k_scale, spec.v_scale,
        KV_HEADS=kv_heads, PAGE=page, HEAD_DIM=head_dim, BLOCK=STORE_BLOCK, LARGEST=LARGEST.get(cache.dtype, 0.0),
    )  # fmt: skip


def _decode(
    out: Tensor, q: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec, sinks: Tensor | None,
    shape: dict[str, Any],
) -> None:
    sequences = batch.seq_lens.shape[0]
    longest = batch.max_seq_len if spec.window is None else min(batch.max_seq_len, spec.window)
    splits = max(1, triton.cdiv(longest, SPLIT))
    sums = torch.empty((sequences, spec.num_heads, splits, spec.head_dim), dtype=torch.float32, device=q.device)
    maxima, totals = torch.empty((2, sequences, spec.num_heads, splits), dtype=torch.float32, device=q.device)
    tiles = decode_tiles(shape["GROUP"], spec.head_dim, q.element_size())
    grid = (sequences, spec.num_kv_heads * triton.cdiv(shape["GROUP"], tiles.rows), splits)
    common = {name: shape[name] for name in ("HEAD_DIM", "DIMS", "WINDOW")}
    decode_kernel[grid](
        q, cache, batch.block_table, batch.query_start, batch.seq_lens, sums, maxima, totals,
        spec.scale * spec.k_scale, spec.soft_cap or 1.0, q.stride(0), batch.block_table.stride(0), splits,
        **common, KV_HEADS=spec.num_kv_heads, GROUP=shape["GROUP"], PAGE=shape["PAGE"], SOFT_CAP=shape["SOFT_CAP"],
        ROWS=tiles.rows, KEYS=tiles.keys, LENGTH=SPLIT, UPCAST=INTERPRETING,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    merge_kernel[(sequences, spec.num_heads)](
        out, batch.query_start, batch.seq_lens, sums, maxima, totals, q if sinks is None else sinks, splits,
        **common, HEADS=spec.num_heads, SINKS=shape["SINKS"], LENGTH=SPLIT, MERGE=MERGE,
    )  # fmt: skip


def _prefill(
    out: Tensor, q: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec, sinks: Tensor | None,
    shape: dict[str, Any],
) -> None:
    tiles = prefill_tiles(spec.head_dim, q.element_size())
    members = min(tiles.rows, triton.next_power_of_2(shape["GROUP"]))
    grid = (
        triton.cdiv(batch.max_query_len, tiles.rows // members),
        spec.num_kv_heads * triton.cdiv(shape["GROUP"], members),
        batch.seq_lens.shape[0],
    )
    prefill_kernel[grid](
        q, out, cache, batch.block_table, batch.query_start, batch.seq_lens, q if sinks is None else sinks,
        spec.scale * spec.k_scale, spec.soft_cap or 1.0, q.stride(0), batch.block_table.stride(0),
        **shape, KV_HEADS=spec.num_kv_heads, MEMBERS=members, ROWS=tiles.rows, KEYS=tiles.keys, UPCAST=INTERPRETING,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def _shape(spec: AttentionSpec, batch: AttentionBatch, sinks: Tensor | None) -> dict[str, Any]:
    """The compile-time facts of a layer."""
    return {
        "GROUP": spec.num_heads // spec.num_kv_heads, "HEAD_DIM": spec.head_dim,
        "DIMS": max(16, triton.next_power_of_2(spec.head_dim)), "PAGE": batch.block_size, "WINDOW": spec.window or 0,
        "SOFT_CAP": spec.soft_cap is not None, "SINKS": sinks is not None,
    }  # fmt: skip


def _packed(x: Tensor) -> Tensor:
    """Rows may stand apart (a slice of a fused projection), a row's heads may not."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
