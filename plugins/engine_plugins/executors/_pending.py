"""Futures that all fail together when a worker is lost."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any


class Pending:
    """What is asked of workers and not answered yet. ``lose`` fails all of it, and whatever is asked afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._lost = threading.Event()
        self.error: Exception | None = None

    def ask(self) -> Future[Any]:
        """A future to be answered; failed already where a worker is lost."""
        future: Future[Any] = Future()
        with self._lock:
            if self.error is None:
                self._open.add(future)
            else:
                future.set_exception(self.error)
        return future

    def answer(self, future: Future[Any], value: Any) -> None:
        """Complete a future, unless a loss has failed it before."""
        if self._take(future):
            future.set_result(value)

    def fail(self, future: Future[Any], error: BaseException) -> None:
        """Fail one future, unless a loss has failed it before."""
        if self._take(future):
            future.set_exception(error)

    def lose(self, error: Exception) -> None:
        """A worker is lost: nothing that is open can be answered any more. The first loss counts."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
            taken, self._open = self._open, set()
        for future in taken:
            future.set_exception(error)
        self._lost.set()

    def wait_lost(self, seconds: float) -> Exception | None:
        """The loss, if one is noticed within that time."""
        self._lost.wait(seconds)
        return self.error

    def _take(self, future: Future[Any]) -> bool:
        with self._lock:
            known = future in self._open
            self._open.discard(future)
        return known
