"""One worker, inside the engine process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import ConfigError
from engine.plugin import Executor, hookimpl

if TYPE_CHECKING:
    from engine.plugin import CacheBudget, StartWorker, Step, StepResult, Worker, WorkerPlan

ENGINE_API = 1

#: Seconds for the worker's thread to end.
PARTING = 5.0

T = TypeVar("T")


@hookimpl
def engine_create_executor(plan: WorkerPlan, start_worker: StartWorker) -> Executor:
    """For a single worker only."""
    if plan.world_size != 1:
        raise ConfigError(
            f"--distributed-executor-backend uni runs one worker, but {plan.world_size} are asked for.",
            fix="--distributed-executor-backend mp",
        )
    return UniExecutor(start_worker, overlap=plan.overlap)


class UniExecutor(Executor):
    """Runs the worker on a thread of its own; without ``overlap`` in the caller's: then a step is over when ``submit`` returns."""

    def __init__(self, start_worker: StartWorker, *, overlap: bool = False) -> None:
        from engine_plugins.executors._own_thread import OwnThread
        from engine_plugins.executors._pending import Pending

        self._start_worker = start_worker
        self._worker: Worker | None = None
        self._thread = OwnThread(Pending()) if overlap else None
        self.overlaps = overlap

    def start(self) -> None:
        """Make the worker and load the model."""
        self._worker = self._do(lambda: self._start_worker(0)).result()
        self._do(self._worker.load).result()

    def budgets(self) -> list[CacheBudget]:
        """The one worker's."""
        return [self._do(self._started().budget).result()]

    def allocate(self, pages: int, host_pages: int) -> None:
        """Create the caches."""
        worker = self._started()
        self._do(lambda: worker.allocate(pages, host_pages)).result()

    def submit(self, step: Step) -> Future[StepResult]:
        """The future carries the worker's error, if any."""
        worker = self._started()
        return self._do(lambda: worker.run(step))

    def call(self, method: str, arguments: dict[str, Any]) -> list[Any]:
        """The worker's answer, after the steps before it."""
        worker = self._started()
        return [self._do(lambda: worker.call(method, arguments)).result()]

    def shutdown(self) -> None:
        """Close the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._do(worker.close).result()
        if self._thread is not None:
            self._thread.stop(PARTING)
            self._thread = None

    def _do(self, job: Callable[[], T]) -> Future[T]:
        if self._thread is not None:
            return self._thread.submit(job)
        done: Future[T] = Future()
        try:
            done.set_result(job())
        except Exception as error:  # noqa: BLE001 - handed on by the future, not hidden
            done.set_exception(error)
        return done

    def _started(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the executor is not started")
        return self._worker
