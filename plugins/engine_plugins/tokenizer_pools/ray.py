"""Ray actors, each with a tokenizer of its own; options are Ray's actor options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.plugin import Tokenizer, TokenizerPool, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """Ray's actor options."""

    num_cpus: float = 0
    num_gpus: float | None = None
    memory: float | None = None
    resources: dict[str, float] | None = None
    runtime_env: dict[str, Any] | None = None
    scheduling_strategy: str | None = None


@hookimpl
def engine_create_tokenizer_pool(create: Callable[[], Tokenizer], size: int, options: Options | None) -> TokenizerPool:
    from ._actors import ActorPool

    return ActorPool(create, size, options or Options())
