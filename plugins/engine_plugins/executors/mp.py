"""Several workers on this machine: rank 0 in the engine process, the others in processes of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TYPE_CHECKING, Any

import msgspec

from engine.plugin import Executor, hookimpl

if TYPE_CHECKING:
    from engine.plugin import CacheBudget, StartWorker, Step, StepResult, Worker, WorkerPlan
    from engine.plugin.workers import ToWorker
    from engine_plugins.executors._subprocess import Subprocess

ENGINE_API = 1

#: Seconds for workers to leave in good order before they are killed.
PARTING = 5.0


@hookimpl
def engine_create_executor(plan: WorkerPlan, start_worker: StartWorker) -> Executor:
    """For any number of workers that the machine has devices for."""
    return MultiprocessExecutor(plan, start_worker)


class MultiprocessExecutor(Executor):
    """Sends every request to all ranks at once; rank 0's answer to a step is the result.

    A worker that ends, falls silent or fails a step fails all that is pending with :class:`~engine.errors.WorkerDied`, at once and for
    good, whether or not rank 0 still waits in a collective for it.
    """

    def __init__(self, plan: WorkerPlan, start_worker: StartWorker) -> None:
        from engine_plugins.executors._own_thread import OwnThread
        from engine_plugins.executors._pending import Pending
        from engine_plugins.executors._spawn import Brood

        self._plan = plan
        self._start_worker = start_worker
        self._pending = Pending()
        self._thread = OwnThread(self._pending)
        self._worker: Worker | None = None
        self._remotes: list[Subprocess] = []
        self._brood = Brood(plan)
        self._closed = False
        #: Only rank 0 samples: further ranks know a token when the next step tells them.
        self.overlaps = plan.overlap and plan.world_size == 1

    def start(self) -> None:
        """Start the processes, then load on all ranks; the first error of any of them is raised."""
        from engine.plugin.workers import Load, Setup

        if self._plan.world_size > 1:
            share = max(1, len(os.sched_getaffinity(0)) // self._plan.world_size)
            os.environ.setdefault("OMP_NUM_THREADS", str(share))
            # From rank 0's thread: Linux ends a child when the thread that made it ends.
            self._remotes = self._thread.submit(lambda: self._brood.spawn(self._pending)).result()
        self._worker = self._thread.submit(lambda: self._start_worker(0)).result()
        setup = msgspec.msgpack.encode(Setup(self._plan.payload, self._plan.rendezvous))
        first_error([remote.ask(setup) for remote in self._remotes])
        first_error(self._everyone(Load(), self._worker.load))

    def budgets(self) -> list[CacheBudget]:
        """Each rank's budget."""
        from engine.plugin.workers import Budget

        own, *others = first_error(self._everyone(Budget(), self._started().budget))
        return [own, *(done.budget for done in others)]

    def allocate(self, pages: int, host_pages: int) -> None:
        """Create the caches on every rank."""
        from engine.plugin.workers import Allocate

        worker = self._started()
        first_error(self._everyone(Allocate(pages, host_pages), lambda: worker.allocate(pages, host_pages)))

    def submit(self, step: Step) -> Future[StepResult]:
        """Start a step on every rank."""
        from engine.plugin.workers import Run

        worker = self._started()
        data = msgspec.msgpack.encode(Run(step)) if self._remotes else b""
        for remote in self._remotes:
            remote.ask(data, step=True)
        return self._thread.submit(lambda: worker.run(step))

    def call(self, method: str, arguments: dict[str, Any]) -> list[Any]:
        """Every rank's answer."""
        from engine.plugin.workers import Invoke

        worker = self._started()
        futures = self._everyone(Invoke(method, arguments), lambda: worker.call(method, arguments))
        wait(futures)
        own, *others = first_error(futures)
        return [own, *(done.value for done in others)]

    def shutdown(self) -> None:
        """Let the workers leave together, kill those that do not, remove the sockets."""
        from engine.plugin.workers import Close

        if self._closed:
            return
        self._closed = True
        if self._pending.error is None:
            wait(self._everyone(Close(), self._worker.close if self._worker else lambda: None), PARTING)
        lost = self._pending.error is not None
        if lost:
            self._brood.kill()
        for remote in self._remotes:
            remote.end(PARTING)
        self._brood.close()
        if lost and self._worker is not None:
            # Rank 0's own thread may never come back from its collective, and neither may this.
            leaving = threading.Thread(target=self._worker.close, name="worker-0-close", daemon=True)
            leaving.start()
            leaving.join(PARTING)
        self._thread.stop(PARTING)
        self._worker = None

    def _everyone(self, request: ToWorker, own: Callable[[], Any]) -> list[Future[Any]]:
        """Ask every rank; rank 0's future first."""
        others = [remote.ask(request) for remote in self._remotes]
        return [self._thread.submit(own), *others]

    def _started(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the executor is not started")
        return self._worker


def first_error(futures: list[Future[Any]]) -> list[Any]:
    """All values; raises the error that came first, without waiting for ranks that hang on the failed one."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        if future in done and future.exception() is not None:
            raise future.exception() or RuntimeError
    return [future.result() for future in futures]
