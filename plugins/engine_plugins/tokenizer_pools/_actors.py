"""A queue of idle Ray actors; one that dies is replaced once, a second death leaves the pool unhealthy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorHandleNotFoundError, RayActorError

from engine.errors import WorkerDied
from engine.plugin import Tokenizer, TokenizerPool

if TYPE_CHECKING:
    from .ray import Options


class _Encoder:
    """What runs in an actor."""

    def __init__(self, create: Callable[[], Tokenizer]) -> None:
        self._tokenizer = create()

    def encode(self, text: str, add_special_tokens: bool, allow_special: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)


class ActorPool(TokenizerPool):
    """Joins the Ray cluster that RAY_ADDRESS names, else starts one on this machine and ends it with the pool."""

    def __init__(self, create: Callable[[], Tokenizer], size: int, options: Options) -> None:
        self._create = create
        self._options = {name: value for name, value in asdict(options).items() if value is not None}
        self._owns = not ray.is_initialized()
        if self._owns:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._actors = [self._start() for _ in range(size)]
        self._idle: asyncio.Queue[Any] | None = None
        self._replaced = 0
        self._broken: str | None = None

    async def encode(self, text: str, *, add_special_tokens: bool, allow_special: bool) -> list[int]:
        """Waits for an idle actor. Raises :class:`WorkerDied` once the pool is unhealthy."""
        queue = self._queue()
        actor = await queue.get()
        try:
            if self._broken is not None:
                raise WorkerDied(f"--tokenizer-pool-type ray: {self._broken}", fix="--tokenizer-pool-size 0")
            try:
                found: list[int] = await actor.encode.remote(text, add_special_tokens, allow_special)
            except RayActorError as error:
                actor = self._replace(actor, error)
                found = await actor.encode.remote(text, add_special_tokens, allow_special)
            return found
        except RayActorError as error:
            self._broken = f"a tokenizer actor died again after it was replaced ({type(error).__name__})."
            raise WorkerDied(f"--tokenizer-pool-type ray: {self._broken}", fix="--tokenizer-pool-size 0") from error
        finally:
            queue.put_nowait(actor)

    def close(self) -> None:
        for actor in self._actors:
            # Another pool of this process may have ended the Ray that it started, and these actors with it.
            with contextlib.suppress(ActorHandleNotFoundError):
                ray.kill(actor)
        self._actors = []
        if self._owns and ray.is_initialized():
            ray.shutdown()
            self._owns = False

    def _queue(self) -> asyncio.Queue[Any]:
        if self._idle is None:
            self._idle = asyncio.Queue()
            for actor in self._actors:
                self._idle.put_nowait(actor)
        return self._idle

    def _replace(self, dead: Any, error: RayActorError) -> Any:
        if self._replaced >= len(self._actors):
            raise error
        self._replaced += 1
        fresh = self._start()
        self._actors[self._actors.index(dead)] = fresh
        return fresh

    def _start(self) -> Any:
        return ray.remote(_Encoder).options(**self._options).remote(self._create)
