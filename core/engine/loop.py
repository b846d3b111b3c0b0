"""The engine on one page: schedule → run → commit, between an inbox of requests and an outbox of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from engine.errors import RequestError
from engine.messages import Abort, Add, Call, Output, Outputs, Returned, Stats, Stop, ToEngine
from engine.plugin.contracts.executor import Executor
from engine.plugin.request import FinishReason, Request
from engine.plugin.step import Step, StepResult


class Scheduling(Protocol):
    """What the loop needs of the scheduler (:class:`engine.scheduler.Scheduler`)."""

    def add(self, request: Request) -> None: ...
    def abort(self, ids: list[str]) -> None: ...
    def schedule(self) -> Step | None: ...
    def commit(self, step: Step, result: StepResult) -> list[Output]: ...
    def stats(self) -> Stats: ...
    def has_work(self) -> bool: ...
    def reset_prefix_cache(self) -> bool: ...


class EngineLoop:
    """Owns the order of events: messages are taken between steps, so an abort frees its pages before the next step.

    ``receive(wait)`` returns the next message, or None: at once when ``wait`` is False, else when one has come.
    ``send`` delivers outputs and answers; it must not block.
    """

    def __init__(
        self,
        scheduler: Scheduling,
        executor: Executor,
        receive: Callable[[bool], ToEngine | None],
        send: Callable[[Outputs | Returned], None],
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._receive = receive
        self._send = send

    def run(self) -> None:
        """Serve until :class:`~engine.messages.Stop` (or the inbox's end)."""
        while self.take_messages():
            self.step()

    def take_messages(self) -> bool:
        """Handle every message that is there; wait for one when there is nothing to do. False: stop."""
        idle = not self._scheduler.has_work()
        while (message := self._receive(idle)) is not None:
            if isinstance(message, Stop):
                return False
            self._handle(message)
            idle = idle and not self._scheduler.has_work()
        return True

    def step(self) -> None:
        """One engine step, if there is something to run."""
        step = self._scheduler.schedule()
        if step is None:
            return
        result = self._executor.submit(step).result()
        outputs = self._scheduler.commit(step, result)
        self._send(Outputs(outputs, self._scheduler.stats()))

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Add(request):
                try:
                    self._scheduler.add(request)
                except RequestError as refused:
                    self._send(Outputs([Output(id=request.id, finish_reason=FinishReason.ERROR, error=refused.line())]))
            case Abort(ids):
                self._scheduler.abort(ids)
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
