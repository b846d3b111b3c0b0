"""Requests with a smaller priority number run first and may take the pages of those with a larger one."""

from __future__ import annotations

from engine.plugin import RequestView, SchedulingPolicy, hookimpl

ENGINE_API = 1


class PriorityOrder(SchedulingPolicy):
    """Orders by priority, then by arrival."""

    def key(self, request: RequestView) -> tuple[int, float, str]:
        """Priority, then arrival; the id breaks ties."""
        return request.priority, request.arrival, request.id

    def may_preempt(self, waiting: RequestView, running: RequestView) -> bool:
        """Strictly better priorities only, so that equals never take pages from each other in turn."""
        return waiting.priority < running.priority


@hookimpl
def engine_create_policy() -> SchedulingPolicy:
    """The policy ``priority``."""
    return PriorityOrder()
