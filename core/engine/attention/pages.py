"""The page layout that the reference and the Triton kernels share: [pages, 2, kv_heads, block_size, head_dim]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.plugin.contracts.attention import AttentionBackend
from engine.plugin.host_memory import zeros

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.facts import AttentionSpec


#: Dtypes whose cast does not saturate: beyond their largest value it makes NaN or infinity.
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


def stored(x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """What a cache of ``dtype`` holds of keys or values: x / scale, saturated where 8 bits hold less than x may be."""
    if scale != 1.0:
        x = x.float() / scale
    largest = LARGEST.get(dtype)
    return x.to(dtype) if largest is None else x.float().clamp(-largest, largest).to(dtype)


class PagedLayout(AttentionBackend):
    """Pages whose axis 1 is K (0) and V (1); a head's ``block_size`` × ``head_dim`` tile is contiguous.

    Heads stand outside the tokens of a page so that one gather of tiles gives keys by head, and so that a GPU program,
    which works on one KV head, reads whole tiles.
    """

    def allocate(
        self, spec: AttentionSpec, pages: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """One layer's cache, zeroed, so that pages never hold stray NaN bits."""
        if device.type == "cpu":
            return zeros((pages, 2, spec.num_kv_heads, block_size, spec.head_dim), dtype)
        cache = torch.empty(
            (pages, 2, spec.num_kv_heads, block_size, spec.head_dim), dtype=dtype, device=device
        )
        cache.view(torch.uint8).zero_()
        return cache

    def page_bytes(self, spec: AttentionSpec, block_size: int, dtype_bytes: float) -> int:
        """Bytes of one page of one layer."""
        return int(2 * spec.num_kv_heads * block_size * spec.head_dim * dtype_bytes)
