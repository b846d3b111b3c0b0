"""A preempted request's pages wait in host memory (--swap-space); when that is full, they are computed again."""

from __future__ import annotations

from engine.plugin import PreemptionMode, RequestView, hookimpl

ENGINE_API = 1


class Swap(PreemptionMode):
    """Copies the victim's pages to the host as long as they fit there."""

    def swap(self, victim: RequestView, pages: int, free_host_pages: int) -> bool:
        """Where there is room for all of them."""
        return pages <= free_host_pages

    def needs_host_pages(self) -> bool:
        """Without host pages this mode would be another."""
        return True


@hookimpl
def engine_create_preemption() -> PreemptionMode:
    """The mode ``swap``."""
    return Swap()
