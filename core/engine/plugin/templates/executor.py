"""One worker on a thread of its own, named example: steps run while the caller goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from engine.plugin import CacheBudget, Executor, StartWorker, Step, StepResult, hookimpl

ENGINE_API = 1


class ExampleExecutor(Executor):
    """The worker's methods run one after the other, on one thread, as its contract asks."""

    def __init__(self, start_worker: StartWorker) -> None:
        self.worker = start_worker(0)
        self.thread = ThreadPoolExecutor(1, "example-worker")
        self.ended = False

    def start(self) -> None:
        self.thread.submit(self.worker.load).result()

    def budgets(self) -> list[CacheBudget]:
        return [self.thread.submit(self.worker.budget).result()]

    def allocate(self, pages: int, host_pages: int) -> None:
        self.thread.submit(self.worker.allocate, pages, host_pages).result()

    def submit(self, step: Step) -> Future[StepResult]:
        return self.thread.submit(self.worker.run, step)

    def call(self, method: str, arguments: dict[str, Any]) -> list[Any]:
        return [self.thread.submit(self.worker.call, method, arguments).result()]

    def shutdown(self) -> None:
        if not self.ended:
            self.ended = True
            self.thread.submit(self.worker.close).result()
            self.thread.shutdown()


@hookimpl
def engine_create_executor(start_worker: StartWorker) -> Executor:
    return ExampleExecutor(start_worker)
