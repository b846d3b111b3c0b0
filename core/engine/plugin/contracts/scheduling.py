"""Contracts of scheduling: the order of requests, and how one gives up its pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec


class RequestView(msgspec.Struct, frozen=True):
    """What a policy may know of a request. ``arrival`` is monotonic seconds, ``computed`` tokens with KV in the cache."""

    id: str
    priority: int
    arrival: float
    prompt_tokens: int
    output_tokens: int
    computed: int
    preemptions: int
    adapter: str | None = None


class SchedulingPolicy(ABC):
    """Orders requests. Pure: no state, no mutation; called when a request enters a queue, not per token."""

    @abstractmethod
    def key(self, request: RequestView) -> Any:
        """A sortable key that does not change while the request lives; the smallest runs first. Must be a total order (end with ``id``)."""

    def may_preempt(self, waiting: RequestView, running: RequestView) -> bool:
        """Whether ``waiting`` may take the pages of ``running``. Default: never; memory shortage preempts the largest key anyway."""
        return False

    def check(self, priority: int) -> str | None:
        """None, or why a request with this ``priority`` must be refused."""
        return None


class PreemptionMode(ABC):
    """Decides how a victim gives up its pages."""

    @abstractmethod
    def swap(self, victim: RequestView, pages: int, free_host_pages: int) -> bool:
        """True: copy its ``pages`` to host memory; False: drop them and compute again later. Answering True without room is an error."""

    def needs_host_pages(self) -> bool:
        """Whether a host page pool (``--swap-space``) must exist."""
        return False


class KVCacheType(ABC):
    """A storage type of the KV cache."""

    @abstractmethod
    def storage(self, model_dtype: str) -> str:
        """Torch dtype name of the stored elements for a model of ``model_dtype``."""

    def scaled(self) -> bool:
        """Whether elements are stored divided by per-layer K and V scales."""
        return False
