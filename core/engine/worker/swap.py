"""Moves of whole pages, which are opaque: device to host, host to device, device to device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.plugin.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class PagePool:
    """The caches of all layers on the device, and as many host pages for swapping (pinned where the device is a GPU).
    """

    def __init__(self, caches: list[Tensor], host_pages: int) -> None:
        self.caches = caches
        self.host = [_host_cache(cache, host_pages) for cache in caches] if host_pages else []

    def move(self, step: Step) -> None:
        """Apply the step's swap_out, swap_in and copies, in this order; each list's moves happen at once.

        On a GPU the copies are queued before the step's work on the same stream; a later use of a host page waits for
        them likewise.
        """
        if step.swap_out:
            self._copy(self.caches, self._pool(), step.swap_out)
        if step.swap_in:
            self._copy(self._pool(), self.caches, step.swap_in)
        if step.copies:
            self._copy(self.caches, self.caches, step.copies)

    def _pool(self) -> list[Tensor]:
        if not self.host:
            raise ValueError("the step swaps pages, but no host pages were allocated")
        return self.host

    @staticmethod
    def _copy(sources: list[Tensor], targets: list[Tensor], moves: list[tuple[int, int]]) -> None:
        pairs = torch.tensor(moves, dtype=torch.int64)
        for source, target in zip(sources, targets, strict=True):
            # index_select on the source's device, then one transfer, then one scatter: the fewest launches for
            # scattered pages.
            pages = _bytes(source).index_select(0, pairs[:, 0].to(source.device))
            _bytes(target).index_copy_(0, pairs[:, 1].to(target.device), pages.to(target.device))


def _bytes(cache: Tensor) -> Tensor:
    """The cache as bytes, one row a page: copies must not care for dtypes that indexing lacks (float8)."""
    return cache.view(cache.shape[0], -1).view(torch.uint8)


def _host_cache(cache: Tensor, pages: int) -> Tensor:
    host = torch.empty((pages, *cache.shape[1:]), dtype=cache.dtype, pin_memory=cache.is_cuda)
    _bytes(host).zero_()  # Written, so that the memory is really there.
    return host
