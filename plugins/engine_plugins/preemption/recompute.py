"""A preempted request drops its pages and computes them again later."""

from __future__ import annotations

from engine.plugin import PreemptionMode, RequestView, hookimpl

ENGINE_API = 1


class Recompute(PreemptionMode):
    """Needs no host memory; what the prefix cache still has need not be computed again."""

    def swap(self, victim: RequestView, pages: int, free_host_pages: int) -> bool:
        """Never."""
        return False


@hookimpl
def engine_create_preemption() -> PreemptionMode:
    """The mode ``recompute``."""
    return Recompute()
