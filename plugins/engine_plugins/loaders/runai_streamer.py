"""Run:ai Model Streamer: .safetensors files read by many threads at once, local or straight from s3://."""

from __future__ import annotations

from dataclasses import dataclass

from engine.plugin import Checkpoint, Loader, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``concurrency``: threads or connections that read. ``memory_limit``: bytes of the streamer's buffer (-1: all, 0: the largest
    tensor)."""

    concurrency: int | None = None
    memory_limit: int | None = None


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, options: Options | None) -> Loader:
    from ._streamer import StreamerLoader

    return StreamerLoader(checkpoint, options or Options())
