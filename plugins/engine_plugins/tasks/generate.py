"""Continues text: completions and chat."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.plugin import ModelInfo, Task, hookimpl

ENGINE_API = 1


class Generation(Task):
    """Completions and chat."""

    def endpoints(self) -> frozenset[str]:
        return frozenset({"completions", "chat"})


@hookimpl
def engine_create_task(info: ModelInfo) -> Task:
    if "generate" not in info.tasks:
        raise ConfigError(
            f"--task generate: {info.architecture} does not generate text; it can {', '.join(info.tasks)}.",
            fix=f"--task {info.tasks[0]}" if info.tasks else "another model",
        )
    return Generation()
