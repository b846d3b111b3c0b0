"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from engine.errors import EngineError

T = TypeVar("T")


class Background:
    """An event loop on a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-frontend", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; an interrupt of the waiting thread cancels it. Raises EngineError after :meth:`close`."""
        try:
            self.check()
        except EngineError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items, one at a time; leaving early closes the iterator there."""
        finish = getattr(items, "aclose", None)
        try:
            while True:
                try:
                    yield self.wait(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if finish is not None and self.open:
                self.wait(finish())

    def close(self) -> None:
        """Stop the loop. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def check(self) -> None:
        """Raise EngineError after :meth:`close`."""
        if not self.open:
            raise EngineError("This engine is closed.", fix="make another LLM")

    @property
    def open(self) -> bool:
        """Whether the loop still runs."""
        return self._thread.is_alive()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
