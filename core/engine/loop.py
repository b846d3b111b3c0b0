"""The engine on one page: schedule → run → commit, between an inbox of requests and an outbox of outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import RequestError
from engine.forecast import Forecast
from engine.messages import Abort, Add, Call, Output, Outputs, Returned, Stats, Stop, ToEngine
from engine.plugin.contracts.executor import Executor
from engine.plugin.request import FinishReason, Request
from engine.plugin.step import Step, StepResult
from engine.record import Novices


class Scheduling(Protocol):
    """What the loop needs of the scheduler (:class:`engine.scheduler.Scheduler`)."""

    def add(self, request: Request) -> None: ...
    def abort(self, ids: list[str]) -> None: ...
    def schedule(self) -> Step | None: ...
    def foreseeable(self) -> bool: ...
    def requests(self, step: Step) -> list[str]: ...
    def commit(self, step: Step, result: StepResult) -> list[Output]: ...
    def stats(self) -> Stats: ...
    def has_work(self) -> bool: ...
    def reset_prefix_cache(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Running:
    """A step that the workers have, and when it began or will begin at the earliest."""

    step: Step
    result: Future[StepResult]
    began: float


class EngineLoop:
    """Owns the order of events: messages are taken before a step is scheduled, so an abort frees its pages before the next step.

    ``receive(wait)`` returns the next message, or None: at once when ``wait`` is False, else when one has come.
    ``send`` delivers outputs and answers; it must not block. ``record`` is told for which unproven requests the engine works.

    With an executor that overlaps, a step is scheduled shortly before the one that runs is over, and the outputs of that one are sent while
    the next runs. Not earlier: what comes meanwhile shall get into the next step.
    """

    def __init__(
        self,
        scheduler: Scheduling,
        executor: Executor,
        receive: Callable[[bool], ToEngine | None],
        send: Callable[[Outputs | Returned], None],
        record: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._receive = receive
        self._send = send
        self._forecast = Forecast()
        self._novices = Novices(record)
        self._running: Running | None = None
        self._stopped = False
        self._since: float | None = None

    @property
    def busy(self) -> float:
        """Seconds since the step that the workers have began; 0 between steps. For other threads to ask."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def run(self) -> None:
        """Serve until :class:`~engine.messages.Stop` (or the inbox's end)."""
        while self.take_messages():
            self.step()

    def take_messages(self) -> bool:
        """Handle every message that is there; wait for one when there is nothing to do. False: stop."""
        idle = self._running is None and not self._scheduler.has_work()
        while not self._stopped and (message := self._receive(idle)) is not None:
            if isinstance(message, Stop):
                self._stopped = True
                break
            self._handle(message)
            idle = idle and not self._scheduler.has_work()
        return not self._stopped

    def step(self) -> None:
        """One engine step, if there is something to run."""
        running, self._running = self._running or self._start(), None
        if running is None:
            return
        if self._executor.overlaps and self._wait_for_end(running) and self.take_messages() and self._scheduler.foreseeable():
            self._running = self._start()
        result = running.result.result()
        self._since = None if self._running is None else time.monotonic()
        self._forecast.observe(running.step, result.seconds)
        if self._running is not None:
            self._running = Running(self._running.step, self._running.result, time.monotonic())
        outputs = self._scheduler.commit(running.step, result)
        self._novices.end(outputs)
        self._send(Outputs(outputs, self._scheduler.stats()))

    def _start(self) -> Running | None:
        step = self._scheduler.schedule()
        if step is None:
            return None
        if self._since is None:
            self._since = time.monotonic()
        self._novices.begin(self._scheduler.requests(step) if self._novices else [])
        return Running(step, self._executor.submit(step), time.monotonic())

    def _wait_for_end(self, running: Running) -> bool:
        """Wait until the step is nearly over. False: it is over, or nobody can say when it will be."""
        seconds = self._forecast.seconds_until_nearly_over(running.step)
        if seconds is None:
            return False
        left = running.began + seconds - time.monotonic()
        if left > 0:
            wait((running.result,), left)
        return not running.result.done()

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Add(request):
                self._novices.enter(request.id)
                try:
                    self._scheduler.add(request)
                except RequestError as refused:
                    self._novices.leave([request.id])
                    self._send(Outputs([Output(id=request.id, finish_reason=FinishReason.ERROR, error=refused.line())]))
                self._novices.entered()
            case Abort(ids):
                self._scheduler.abort(ids)
                self._novices.leave(ids)
                if not self._scheduler.has_work():
                    # No step will follow that could tell the front end that the pages are free.
                    self._send(Outputs([], self._scheduler.stats()))
            case Call(number, method, arguments):
                self._send(self._answer(number, method, arguments))
            case Stop():
                raise AssertionError("Stop is handled by take_messages")

    def _answer(self, number: int, method: str, arguments: dict[str, Any]) -> Returned:
        if method == "stats":
            return Returned(number, self._scheduler.stats())
        if method == "reset_prefix_cache":
            return Returned(number, self._scheduler.reset_prefix_cache())
        try:
            return Returned(number, self._executor.call(method, arguments))
        except LookupError:
            return Returned(number, error=f"the engine has no operation {method!r}")
