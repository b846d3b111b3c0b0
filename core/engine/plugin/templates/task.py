"""Serves completions without the chat endpoints; a task named example."""

from __future__ import annotations

from engine.plugin import Task, hookimpl

ENGINE_API = 1


class CompletionsOnly(Task):
    """For base models, which have no chat template."""

    def endpoints(self) -> frozenset[str]:
        return frozenset({"completions"})


@hookimpl
def engine_create_task() -> Task:
    return CompletionsOnly()
