"""Random paged batches for attention tests, and attention written as three plain loops."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.facts import AttentionSpec


@dataclass(frozen=True)
class Case:
    """``work``: (query_len, seq_len) per sequence; ``pad_rows`` rows of slot −1 follow the last sequence's.

    ``cache``: the cache's dtype where it is not ``dtype``; keys and values are then such as it holds exactly.
    """

    work: tuple[tuple[int, int], ...]
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 8
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    dtype: str = "float32"
    pad_rows: int = 0
    seed: int = 0
    cache: str = ""
    k_scale: float = 1.0
    v_scale: float = 1.0

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(
            num_heads=self.heads, num_kv_heads=self.kv_heads, head_dim=self.head_dim, scale=self.head_dim**-0.5,
            window=self.window, soft_cap=self.soft_cap, sinks=self.sinks, k_scale=self.k_scale, v_scale=self.v_scale,
        )


@dataclass
class Inputs:
    """What ``attend`` takes, and each sequence's whole K and V [seq_len, kv_heads, head_dim]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    cache: torch.Tensor
    batch: AttentionBatch
    sinks: torch.Tensor | None
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def to(self, device: str) -> Inputs:
        moved = AttentionBatch(
            query_start=self.batch.query_start.to(device), seq_lens=self.batch.seq_lens.to(device),
            block_table=self.batch.block_table.to(device), slots=self.batch.slots.to(device),
            block_size=self.batch.block_size, max_query_len=self.batch.max_query_len,
            max_seq_len=self.batch.max_seq_len, host=self.batch.host,
        )
        sinks = None if self.sinks is None else self.sinks.to(device)
        q, k, v, cache = (tensor.to(device) for tensor in (self.q, self.k, self.v, self.cache))
        return Inputs(q, k, v, cache, moved, sinks, self.keys, self.values)


def make(case: Case, backend, host: bool = True, stale: float = 0.0) -> Inputs:
    """Pages in random order; earlier context already stored; everything a step must not read holds ``stale``."""
    generator = torch.Generator().manual_seed(case.seed)
    dtype = getattr(torch, case.dtype)

    kept = getattr(torch, case.cache) if case.cache else dtype

    def normal(*shape, scale=None):
        made = torch.randn(*shape, generator=generator)
        return (made if scale is None else (made / scale).to(kept).float() * scale).to(dtype)

    size = case.block_size
    needed = [-(-length // size) for _, length in case.work]
    columns = max([*needed, 1]) + 2
    total = sum(needed) + 3
    order = torch.randperm(total, generator=generator).tolist()
    cache = backend.allocate(case.spec, total, size, kept, torch.device("cpu"))
    cache.copy_(torch.full(cache.shape, stale))
    table = torch.full((len(case.work), columns), order[-1], dtype=torch.int32)
    queries, keys, values, slots = [], [], [], []
    for index, (count, length) in enumerate(case.work):
        pages = [order.pop(0) for _ in range(needed[index])]
        table[index, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
        queries.append(normal(count, case.heads, case.head_dim))
        keys.append(normal(length, case.kv_heads, case.head_dim, scale=case.k_scale))
        values.append(normal(length, case.kv_heads, case.head_dim, scale=case.v_scale))
        for position in range(length):
            page, offset = pages[position // size], position % size
            if position < length - count:
                cache[page, 0, :, offset] = keys[-1][position] / case.k_scale
                cache[page, 1, :, offset] = values[-1][position] / case.v_scale
            else:
                slots.append(page * size + offset)
        slots.extend([-1] * max(0, count - length))
    queries.append(normal(case.pad_rows, case.heads, case.head_dim))
    slots.extend([-1] * case.pad_rows)
    fresh = [rows[max(0, length - count) :] for rows, (count, length) in zip(keys, case.work, strict=True)]
    fresh_values = [rows[max(0, length - count) :] for rows, (count, length) in zip(values, case.work, strict=True)]
    k, v = (_with_padding(rows, case, normal) for rows in (fresh, fresh_values))
    query_lens = tuple(count for count, _ in case.work)
    seq_lens = tuple(length for _, length in case.work)
    batch = AttentionBatch(
        query_start=torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        seq_lens=torch.tensor(seq_lens, dtype=torch.int32), block_table=table,
        slots=torch.tensor(slots, dtype=torch.int64), block_size=size,
        max_query_len=max(query_lens, default=0), max_seq_len=max(seq_lens, default=0),
        host=(query_lens, seq_lens) if host else None,
    )
    sinks = torch.randn(case.heads, generator=generator) if case.sinks else None
    return Inputs(torch.cat(queries), k, v, cache, batch, sinks, keys, values)


def _with_padding(fresh, case, normal):
    """Rows in step order; a row without a slot (an empty sequence's, padding) gets values that nobody may read."""
    parts = []
    for rows, (count, length) in zip(fresh, case.work, strict=True):
        parts += [rows, normal(max(0, count - length), case.kv_heads, case.head_dim)]
    return torch.cat([*parts, normal(case.pad_rows, case.kv_heads, case.head_dim)])


def naive(case: Case, inputs: Inputs) -> torch.Tensor:
    """Attention by its definition, in float64, one query row and head at a time."""
    out = torch.zeros(inputs.q.shape, dtype=torch.float64)
    row = 0
    for index, (count, length) in enumerate(case.work):
        keys, values = inputs.keys[index].double(), inputs.values[index].double()
        for i in range(count):
            position = length - count + i
            first = 0 if case.window is None else max(0, position - case.window + 1)
            for head in range(case.heads if length else 0):
                kv = head // (case.heads // case.kv_heads)
                scores = keys[first : position + 1, kv] @ inputs.q[row, head].double() * case.spec.scale
                if case.soft_cap is not None:
                    scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
                weights = scores.exp()
                total = weights.sum() + (inputs.sinks[head].double().exp() if case.sinks else 0.0)
                out[row, head] = (weights / total) @ values[first : position + 1, kv]
            row += 1
    return out
