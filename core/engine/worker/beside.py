"""A thread beside the model's: one job at a time, handed over and back in microseconds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """Runs the jobs that one other thread asks for, each before the next. The thread is there from the first one on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked = False

    def ask(self, job: Callable[[], T]) -> None:
        """Begin a job; the answer to the one before must have been taken or forgotten."""
        if self._thread is None:
            # A daemon: a job that never ends must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._asked = True
        self._jobs.put(job)

    def answer(self) -> T | None:
        """Wait for the job. None where none was asked for. Raises what it raised."""
        if not self._asked:
            return None
        self._asked = False
        value, error = self._answers.get()
        if error is not None:
            raise error
        return value

    def forget(self) -> None:
        """Wait for the job whose answer nobody took, if there is one."""
        if self._asked:
            self._asked = False
            self._answers.get()

    def close(self) -> None:
        """End the thread after its job."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._answers.put((job(), None))
            except BaseException as error:  # noqa: BLE001 - carried to the thread that asked
                self._answers.put((None, error))
            del job
