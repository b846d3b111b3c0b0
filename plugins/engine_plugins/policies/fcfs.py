"""First come, first served: requests run in the order of their arrival."""

from __future__ import annotations

from engine.plugin import RequestView, SchedulingPolicy, hookimpl

ENGINE_API = 1


class ArrivalOrder(SchedulingPolicy):
    """Orders by arrival; a preempted request is therefore the first to return."""

    def key(self, request: RequestView) -> tuple[float, str]:
        """Arrival; the id breaks ties."""
        return request.arrival, request.id

    def check(self, priority: int) -> str | None:
        """A priority would be ignored, so it is refused."""
        if priority == 0:
            return None
        return f"priority {priority} needs --scheduling-policy priority; this server runs requests in order of arrival."


@hookimpl
def engine_create_policy() -> SchedulingPolicy:
    """The policy ``fcfs``."""
    return ArrivalOrder()
