"""A configuration and a real HTTP server around a fake engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from engine.config import (
    CacheConfig,
    EngineConfig,
    LoadConfig,
    ModelConfig,
    ParallelConfig,
    RunConfig,
    SchedulerConfig,
    ServerConfig,
)  # fmt: skip
from engine.plugin import AttentionSpec, Checkpoint, DeviceFacts, ModelInfo
from engine.server.app import create_app
from engine.server.run import _Ending, bind, serve
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer


def make_config(*, max_model_len: int = 512, logits_size: int = 270, max_num_seqs: int = 8, **server: Any) -> EngineConfig:
    """A small model ``toy``; ``server`` are ServerConfig's fields."""
    info = ModelInfo(
        architecture="Toy", vocab_size=logits_size, hidden_size=8, layers=(AttentionSpec(1, 1, 8, 1.0),), max_model_len=max_model_len,
        logits_size=logits_size,
    )  # fmt: skip
    return EngineConfig(
        model=ModelConfig(
            checkpoint=Checkpoint("toy", "/toy", "/toy", "/toy"), config={}, generation={}, info=info, dtype="float32",
            max_model_len=max_model_len, served_names=("toy", "toy-alias"),
        ),
        load=LoadConfig(),
        cache=CacheConfig(
            block_size=16, dtype="auto", pages=100, host_pages=0, page_bytes=1, prefix_caching=True, memory_fraction=0.9
        ),
        scheduler=SchedulerConfig(max_num_batched_tokens=64, max_num_seqs=max_num_seqs),
        parallel=ParallelConfig(),
        run=RunConfig(),
        server=ServerConfig(host="127.0.0.1", port=0, disable_uvicorn_access_log=True, uvicorn_log_level="error", **server),
        device=DeviceFacts("cpu", True, ""),
        choices={},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def in_memory(client: FakeClient | None = None, tokenizer: Any = "byte", config: EngineConfig | None = None, **kwargs: Any):
    """An httpx client on the application itself, without a socket."""
    config = config or make_config()
    client = client or FakeClient()
    app = create_app(config, client, byte_tokenizer() if tokenizer == "byte" else tokenizer, **kwargs)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, root_path=config.server.root_path), base_url="http://engine") as http:
        http.engine, http.app = client, app
        yield http


@contextlib.asynccontextmanager
async def on_socket(client: FakeClient, config: EngineConfig | None = None, tokenizer: Any = None, **kwargs: Any) -> AsyncIterator[str]:
    """The base URL of a server on a free port."""
    config = config or make_config()
    listening = bind("127.0.0.1", 0)
    app = create_app(config, client, tokenizer or byte_tokenizer(), **kwargs)
    ending = _Ending()
    task = asyncio.create_task(serve(app, config.server, listening, ending))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ending._end(0)
        await asyncio.wait_for(task, 20)
        listening.close()


def with_server(config: EngineConfig, **fields: Any) -> EngineConfig:
    """``config`` with other server settings."""
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **fields))
