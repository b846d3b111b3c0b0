"""The shortest prompt runs first; named example."""

from __future__ import annotations

from typing import Any

from engine.plugin import RequestView, SchedulingPolicy, hookimpl

ENGINE_API = 1


class ShortestPrompt(SchedulingPolicy):
    """Of prompts of one length, the older."""

    def key(self, request: RequestView) -> Any:
        return (request.prompt_tokens, request.arrival, request.id)


@hookimpl
def engine_create_policy() -> SchedulingPolicy:
    return ShortestPrompt()
