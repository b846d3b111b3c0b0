"""Swaps long contexts to host memory and computes short ones again; named example."""

from __future__ import annotations

from engine.plugin import PreemptionMode, RequestView, hookimpl

ENGINE_API = 1
LONG = 512


class SwapLong(PreemptionMode):
    """Copying pays where computing again would cost more."""

    def swap(self, victim: RequestView, pages: int, free_host_pages: int) -> bool:
        return victim.computed > LONG and pages <= free_host_pages

    def needs_host_pages(self) -> bool:
        return True


@hookimpl
def engine_create_preemption() -> PreemptionMode:
    return SwapLong()
