"""Contract of attention over the paged KV cache: page layout and the attention that reads it belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from engine.plugin.facts import AttentionSpec


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBatch:
    """Where each token of a step stands. B sequences, T tokens, packed without padding.

    query_start int32 [B+1]: rows of sequence b are [query_start[b], query_start[b+1]).
    seq_lens    int32 [B]:   context length after this step (its last row has position seq_lens[b]-1).
    block_table int32 [B, pages]: page numbers in order; entries past the length are arbitrary but valid page numbers.
    slots       int64 [T]:   where to store each row's K and V: page · block_size + offset; −1: store nothing (padding).
    max_query_len, max_seq_len: host integers (bounds for launch grids; a recorded step keeps the largest it may replay).
    host: the same lengths as Python ints, ``(query_lens, seq_lens)``; None inside a recorded step.
    """

    query_start: Tensor
    seq_lens: Tensor
    block_table: Tensor
    slots: Tensor
    block_size: int
    max_query_len: int
    max_seq_len: int
    host: tuple[tuple[int, ...], tuple[int, ...]] | None = None


class AttentionBackend(ABC):
    """K/V pages of one layout, and attention over them. One per worker; stateless between calls."""

    #: Shown by ``engine plan`` and in logs.
    name: str
    #: Whether ``attend`` takes ``queries``: the last layer then attends for the rows alone whose results are wanted.
    selects: bool = False

    @abstractmethod
    def allocate(
        self, spec: AttentionSpec, pages: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """One layer's cache. The first axis is the page: ``cache[i]`` is an opaque page that may be copied, swapped and sent.

        Zeroed. Device memory is committed (written), so that a cache that was granted cannot fail later; host memory comes
        from :func:`engine.plugin.host_memory.zeros`, and the worker has it committed while it serves.
        """

    @abstractmethod
    def page_bytes(self, spec: AttentionSpec, block_size: int, dtype_bytes: float) -> int:
        """Bytes of one page of one layer."""

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec,
        sinks: Tensor | None = None, queries: AttentionBatch | None = None,
    ) -> Tensor:
        """Store this step's K and V into the cache, then attend causally.

        q [T, heads, head_dim], k and v [T, kv_heads, head_dim] (rope applied) → [T, heads, head_dim], in q's dtype.
        A query at position p sees keys at positions ≤ p (and > p - window). ``sinks`` [heads]: learned extra logits.

        ``queries`` (where ``selects`` says so): k and v are stored as ``batch`` says, and q holds the rows of ``queries`` instead, whose
        slots mean nothing: [R, heads, head_dim] → the same.
        """

    def supports(self, spec: AttentionSpec, dtype: torch.dtype) -> str | None:
        """None, or why this backend cannot run that layer."""
        return None
