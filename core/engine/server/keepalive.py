"""Events that keep a quiet stream open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

#: Proxies and clients give up on streams that are silent for longer, commonly after 30 or 60 seconds.
QUIET_SECONDS = 15.0


async def kept_alive(events: AsyncIterator[Any], ping: Any, *, seconds: float = QUIET_SECONDS) -> AsyncIterator[Any]:
    """``events``, with ``ping`` whenever there was none for so many seconds. Closing it closes ``events``."""
    coming: asyncio.Task[Any] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(_next(events))
            while not (await asyncio.wait((coming,), timeout=seconds))[0]:
                yield ping
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await coming
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _next(events: AsyncIterator[Any]) -> Any:
    return await anext(events)
