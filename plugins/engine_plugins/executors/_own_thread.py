"""Rank 0: a worker in the engine process, on one thread of its own."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from engine.errors import WorkerDied
from engine_plugins.executors._pending import Pending

#: Seconds that the watchers get to say which peer died, when a collective has just failed for want of it.
EXPLANATION = 1.0
#: Seconds for a job under way when the interpreter ends.
FAREWELL = 5.0


class OwnThread:
    """Runs jobs in order. The thread is a daemon: a collective that never returns must not keep the process from
    ending. Where nobody has stopped it, the interpreter's end waits for its job all the same: torch aborts the process when it comes back
    to an interpreter that is gone."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="worker-0", daemon=True)
        self._leaving = False
        self._thread.start()
        atexit.register(self._leave)

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Run the job after those before it."""
        future = self._pending.ask()
        if not future.done():
            self._jobs.put((job, future))
        return future

    def stop(self, seconds: float) -> None:
        """End the thread after its jobs, or leave it behind when they do not end in time."""
        self._jobs.put(None)
        self._thread.join(seconds)
        if not self._thread.is_alive():
            atexit.unregister(self._leave)

    def _leave(self) -> None:
        """Begin no further job."""
        self._leaving = True
        self._jobs.put(None)
        self._thread.join(FAREWELL)

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None and not self._leaving:
            job, future = entry
            try:
                value = job()
            except BaseException as error:  # noqa: BLE001 - carried by the future
                if isinstance(error, WorkerDied):
                    self._pending.wait_lost(EXPLANATION)
                self._pending.fail(future, error)
            else:
                self._pending.answer(future, value)
