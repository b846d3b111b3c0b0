"""How the torch reference walks a batch: decode rows in groups of one width, prefills one by one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.attention import AttentionBatch
    from engine.plugin.facts import AttentionSpec

#: Bytes of float32 keys and values that one decode group gathers at most (it always takes at least one sequence).
#: Larger pieces leave the caches and get fresh memory from the system each time: measured 18 times slower at 64 MiB.
GATHER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class DecodeGroup:
    """Sequences with one query row each whose keys fill the same number of tiles.

    rows int64 [B]: their rows in q; None: all rows of the step, in order.
    tiles int64 [2, B, kv_heads, n]: tile numbers of K and V over the cache's first three axes.
    hidden bool [B, n · block_size]: positions that the query must not see.
    """

    rows: Tensor | None
    tiles: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PrefillRows:
    """One sequence with rows [start, stop) of q; the last of them has position ``length`` − 1.

    tiles int64 [2, kv_heads, n]: its tiles from position ``base`` on.
    """

    start: int
    stop: int
    length: int
    base: int
    tiles: Tensor

    def visible(self, first: int, last: int, window: int | None) -> tuple[int, int]:
        """The gathered positions [begin, end) that any of the query rows [first, last) sees."""
        context = self.length - (self.stop - self.start)
        begin = 0 if window is None else max(0, context + first - window + 1 - self.base)
        return begin, context + last - self.base

    def hidden(self, first: int, last: int, begin: int, end: int, window: int | None, device: torch.device) -> Tensor:
        """bool [last − first, end − begin]: what each of the rows must not see of the gathered positions."""
        context = self.length - (self.stop - self.start)
        queries = torch.arange(context + first, context + last, device=device)[:, None]
        keys = torch.arange(self.base + begin, self.base + end, device=device)[None, :]
        later = keys > queries
        return later if window is None else later | (keys <= queries - window)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One batch for one shape of layer."""

    decodes: tuple[DecodeGroup, ...]
    prefills: tuple[PrefillRows, ...]


def plan_batch(batch: AttentionBatch, spec: AttentionSpec, device: torch.device) -> Plan:
    """Sort the sequences: one row → a decode group by width, more → prefill, none or no context → nothing."""
    if batch.host is None:
        starts = batch.query_start.tolist()
        query_lens = tuple(stop - start for start, stop in pairwise(starts))
        seq_lens = tuple(batch.seq_lens.tolist())
    else:
        query_lens, seq_lens = batch.host
    grouped: dict[int, list[tuple[int, int]]] = {}
    prefills: list[PrefillRows] = []
    row = 0
    for index, (count, length) in enumerate(zip(query_lens, seq_lens, strict=True)):
        if count == 1 and length > 0:
            first = _first_page(length, spec.window, batch.block_size)
            width = gather_width(-(-length // batch.block_size) - first, batch.block_size)
            grouped.setdefault(width, []).append((index, row))
        elif count > 1 and length > 0:
            prefills.append(_prefill_rows(index, row, count, length, batch, spec))
        row += count
    total = batch.slots.shape[0]
    decodes: list[DecodeGroup] = []
    for width, members in grouped.items():
        most = max(1, GATHER_BYTES // (8 * spec.num_kv_heads * spec.head_dim * width * batch.block_size))
        for start in range(0, len(members), most):
            part = members[start : start + most]
            decodes.append(_decode_group(part, width, batch, spec, seq_lens, len(part) == total, device))
    return Plan(tuple(decodes), tuple(prefills))


def gather_width(pages: int, block_size: int) -> int:
    """Pages to gather where ``pages`` are needed: up to a power of two of tokens until 512, then to multiples of 512.

    It follows from the sequence's own length alone, so that sums over the width have one shape, and therefore one
    rounding, whatever else is in the batch; and few widths occur, so that most sequences of a step share a group.
    """
    tokens = pages * block_size
    padded = max(64, 1 << (tokens - 1).bit_length()) if tokens <= 512 else -(-tokens // 512) * 512
    return -(-padded // block_size)


def _first_page(length: int, window: int | None, block_size: int) -> int:
    return 0 if window is None else max(0, length - window) // block_size


def _tiles(pages: Tensor, kv_heads: int) -> Tensor:
    """Page numbers [..., n] → tile numbers [2, ..., kv_heads, n]."""
    head = torch.arange(kv_heads, device=pages.device)[:, None]
    keys = pages.unsqueeze(-2) * (2 * kv_heads) + head
    return torch.stack((keys, keys + kv_heads))


def _decode_group(
    members: list[tuple[int, int]], width: int, batch: AttentionBatch, spec: AttentionSpec,
    seq_lens: tuple[int, ...], whole: bool, device: torch.device,
) -> DecodeGroup:
    indices = [index for index, _ in members]
    lengths = [seq_lens[index] for index in indices]
    firsts = torch.tensor([_first_page(length, spec.window, batch.block_size) for length in lengths], device=device)
    ends = torch.tensor(lengths, device=device)[:, None]
    columns = firsts[:, None] + torch.arange(width, device=device)
    table = batch.block_table[torch.tensor(indices, device=device)].long()
    pages = table.gather(1, columns.clamp_(max=table.shape[1] - 1))
    positions = firsts[:, None] * batch.block_size + torch.arange(width * batch.block_size, device=device)
    hidden = positions >= ends
    if spec.window is not None:
        hidden |= positions < ends - spec.window
    rows = None if whole else torch.tensor([row for _, row in members], device=device)
    return DecodeGroup(rows, _tiles(pages, spec.num_kv_heads), hidden)


def _prefill_rows(
    index: int, row: int, count: int, length: int, batch: AttentionBatch, spec: AttentionSpec
) -> PrefillRows:
    first = 0 if spec.window is None else _first_page(length - count + 1, spec.window, batch.block_size)
    pages = batch.block_table[index, first : -(-length // batch.block_size)].long()
    return PrefillRows(row, row + count, length, first * batch.block_size, _tiles(pages, spec.num_kv_heads))
