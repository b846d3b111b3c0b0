"""Attention in plain torch: the truth that kernels are compared with, and the path of devices without kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.attention.pages import PagedLayout, stored
from engine.attention.reference_plan import Plan, PrefillRows, plan_batch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.attention.reference_plan import DecodeGroup
    from engine.plugin.contracts.attention import AttentionBatch
    from engine.plugin.facts import AttentionSpec

#: Float32 scores that one prefill matmul holds at most (2 MiB), in slices of query rows: what fits into a cache is
#: several times faster, and a slice need not score the keys after its last row.
SCORES_AT_ONCE = 1 << 19


class ReferenceAttention(PagedLayout):
    """Scores, softmax and sums in float32 whatever the dtype of the inputs and of the cache.

    A sequence's result does not depend on its batch mates: what it is reduced over has a shape that follows from
    its own length alone (see :mod:`engine.attention.reference_plan`). Beside the cache it needs room for float32 copies
    of keys and values: 8 · kv_heads · head_dim · length bytes for the longest prefill of a step, at most 4 MiB (or one
    sequence's) for decodes; and a few MiB for scores.
    """

    name = "torch reference"
    selects = True

    def __init__(self) -> None:
        self._planned: tuple[AttentionBatch, dict[tuple[int, int, int | None], Plan]] | None = None

    def supports(self, spec: AttentionSpec, dtype: torch.dtype) -> str | None:
        """Any floating dtype, and any grouping of query heads over KV heads that comes out even."""
        if spec.num_heads % spec.num_kv_heads:
            return f"{spec.num_heads} query heads do not divide over {spec.num_kv_heads} KV heads"
        return None if dtype.is_floating_point else f"attention needs a floating dtype, not {dtype}"

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec,
        sinks: Tensor | None = None, queries: AttentionBatch | None = None,
    ) -> Tensor:
        """See the contract. Rows that belong to no sequence, and rows of empty sequences, come out as zeros."""
        store(k, v, cache, batch, spec)
        out = torch.zeros_like(q)
        plan = self._plan(queries or batch, spec, cache)
        extra = None if sinks is None else sinks.float()
        for group in plan.decodes:
            rows = q if group.rows is None else q.index_select(0, group.rows)
            result = _decode(rows, cache, group, spec, extra).to(q.dtype)
            if group.rows is None:
                out = result
            else:
                out.index_copy_(0, group.rows, result)
        for rows_of in plan.prefills:
            _prefill(q, out, cache, rows_of, spec, extra)
        return out

    def _plan(self, batch: AttentionBatch, spec: AttentionSpec, cache: Tensor) -> Plan:
        """The batch's plan, the same for all layers of one shape; a batch with ``host`` lengths never changes."""
        if batch.host is None:
            return plan_batch(batch, spec, cache.device)
        if self._planned is None or self._planned[0] is not batch:
            self._planned = (batch, {})
        plans = self._planned[1]
        key = (spec.num_kv_heads, spec.head_dim, spec.window)
        if key not in plans:
            plans[key] = plan_batch(batch, spec, cache.device)
        return plans[key]


def store(k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec) -> None:
    """Write the rows' K and V [T, kv_heads, head_dim] to their slots; rows of slot −1 are skipped."""
    slots = batch.slots
    kept = slots >= 0
    if not bool(kept.all()):
        slots, k, v = slots[kept], k[kept], v[kept]
    page, offset = slots // batch.block_size, slots % batch.block_size
    keys, values = stored(k, spec.k_scale, cache.dtype), stored(v, spec.v_scale, cache.dtype)
    if cache.element_size() == 1:
        # Torch does not index float8.
        cache, keys, values = cache.view(torch.uint8), keys.view(torch.uint8), values.view(torch.uint8)
    cache[page, 0, :, offset] = keys
    cache[page, 1, :, offset] = values


def _gather(cache: Tensor, tiles: Tensor) -> Tensor:
    """Tiles numbered over [pages · 2 · kv_heads], [..., n] → float32 [..., n · block_size, head_dim]."""
    block_size, head_dim = cache.shape[-2:]
    small = cache.element_size() == 1
    flat = (cache.view(torch.uint8) if small else cache).view(-1, block_size * head_dim).index_select(0, tiles.reshape(-1))
    if small:
        flat = flat.view(cache.dtype)
    return flat.view(*tiles.shape[:-1], tiles.shape[-1] * block_size, head_dim).float()


def _decode(q: Tensor, cache: Tensor, group: DecodeGroup, spec: AttentionSpec, sinks: Tensor | None) -> Tensor:
    """One query row per sequence: [B, heads, head_dim] → float32 of the same shape."""
    heads, kv_heads = spec.num_heads, spec.num_kv_heads
    scale = spec.scale * spec.k_scale
    queries = q.float().mul_(scale) if q.dtype != torch.float32 else q * scale
    queries = queries.view(-1, heads // kv_heads, spec.head_dim)
    keys, values = _gather(cache, group.tiles).flatten(1, 2)
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(q.shape[0], heads, -1)
    scores = _cap(scores, spec.soft_cap).masked_fill_(group.hidden[:, None, :], -torch.inf)
    weights = _softmax(scores, None if sinks is None else sinks.view(1, -1, 1)).reshape(*queries.shape[:2], -1)
    out = torch.bmm(weights, values)
    if not bool(out.isfinite().all()):
        # 0 · NaN is NaN: hidden positions may hold what another request left there.
        per_head = group.hidden[:, None, :, None].expand(-1, kv_heads, -1, -1).flatten(0, 1)
        out = torch.bmm(weights, values.masked_fill(per_head, 0.0))
    return _times(out, spec.v_scale).view(q.shape)


def _prefill(
    q: Tensor, out: Tensor, cache: Tensor, rows: PrefillRows, spec: AttentionSpec, sinks: Tensor | None
) -> None:
    """Rows of one sequence, in slices of query rows; each slice sees only the keys that any of its rows may see."""
    heads, kv_heads = spec.num_heads, spec.num_kv_heads
    keys, values = _gather(cache, rows.tiles)
    count = rows.stop - rows.start
    step = max(1, min(count, SCORES_AT_ONCE // (heads * rows.length)))
    for first in range(0, count, step):
        last = min(first + step, count)
        begin, end = rows.visible(first, last, spec.window)
        part = q[rows.start + first : rows.start + last].float() * (spec.scale * spec.k_scale)
        queries = part.transpose(0, 1).reshape(kv_heads, -1, spec.head_dim)
        scores = torch.bmm(queries, keys[:, begin:end].transpose(1, 2)).view(heads, last - first, -1)
        hidden = rows.hidden(first, last, begin, end, spec.window, q.device)
        scores = _cap(scores, spec.soft_cap).masked_fill_(hidden, -torch.inf)
        weights = _softmax(scores, None if sinks is None else sinks.view(-1, 1, 1))
        result = _times(torch.bmm(weights.reshape(kv_heads, -1, end - begin), values[:, begin:end]), spec.v_scale)
        out[rows.start + first : rows.start + last] = result.view(heads, last - first, -1).transpose(0, 1).to(out.dtype)


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x.mul_(factor)


def _cap(scores: Tensor, soft_cap: float | None) -> Tensor:
    return scores if soft_cap is None else scores.div_(soft_cap).tanh_().mul_(soft_cap)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Over the last axis; ``sinks`` (one logit per head, shaped to broadcast) take their share of each sum."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(torch.cat((scores, sinks.expand(*scores.shape[:-1], 1)), dim=-1), dim=-1)[..., :-1]
