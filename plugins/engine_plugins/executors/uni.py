"""One worker, inside the engine process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.plugin import Executor, hookimpl

if TYPE_CHECKING:
    from engine.plugin import CacheBudget, StartWorker, Step, StepResult, Worker, WorkerPlan

ENGINE_API = 1


@hookimpl
def engine_create_executor(plan: WorkerPlan, start_worker: StartWorker) -> Executor:
    """For a single worker only."""
    if plan.world_size != 1:
        raise ConfigError(
            f"--distributed-executor-backend uni runs one worker, but {plan.world_size} are asked for.",
            fix="--distributed-executor-backend mp",
        )
    return UniExecutor(start_worker)


class UniExecutor(Executor):
    """Runs each step in the caller's thread, before ``submit`` returns."""

    def __init__(self, start_worker: StartWorker) -> None:
        self._start_worker = start_worker
        self._worker: Worker | None = None

    def start(self) -> None:
        """Make the worker and load the model."""
        self._worker = self._start_worker(0)
        self._worker.load()

    def budgets(self) -> list[CacheBudget]:
        """The one worker's."""
        return [self._started().budget()]

    def allocate(self, pages: int, host_pages: int) -> None:
        """Create the caches."""
        self._started().allocate(pages, host_pages)

    def submit(self, step: Step) -> Future[StepResult]:
        """A future that is done already; it carries the worker's error, if any."""
        done: Future[StepResult] = Future()
        try:
            done.set_result(self._started().run(step))
        except Exception as error:  # noqa: BLE001 - handed on by the future, not hidden
            done.set_exception(error)
        return done

    def call(self, method: str, arguments: dict[str, Any]) -> list[Any]:
        """The worker's answer."""
        return [self._started().call(method, arguments)]

    def shutdown(self) -> None:
        """Close the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _started(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the executor is not started")
        return self._worker
