"""The front end's side of the engine: starts it, sends requests, hands out their outputs, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from engine.config import EngineConfig
from engine.death import Death, stopped
from engine.errors import EngineError, WorkerDied
from engine.inquest import Inquest
from engine.journal import Entry, Question
from engine.life import Life
from engine.messages import Abort, Add, Alive, Call, Failed, FromEngine, Output, Outputs, Progress, Ready, Returned, Stats
from engine.plugin.request import Request
from engine.trials import Trials

#: Starts without any answer in between after which the engine is given up.
_FRUITLESS_STARTS = 10
#: Seconds between two looks at a silent engine, and before a failed start is repeated (times the number of the attempt).
_LOOK = 0.5
_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
#: An operation fails after so many engines that died by their own doing before they answered it.
_DEATHS_OF_QUESTION = 4
#: Seconds between two signs of life of an engine.
_BEAT = 1.0

log = logging.getLogger("engine.client")


class EngineClient:
    """One engine and the requests that it serves. Use it from one event loop.

    ``ready`` is set after :meth:`start`; ``stats`` is the engine's latest state; ``dead`` is why it no longer serves.

    An engine process that ends, is silent for ``--engine-silence-timeout`` seconds or takes longer than ``--step-timeout`` for one
    step is started again, and every request goes on after its last delivered token. A request that ends it again and again fails:
    see :class:`engine.inquest.Inquest`.
    """

    def __init__(self, config: EngineConfig, progress: Callable[[Progress], None] | None = None) -> None:
        self._config = config
        self._progress = progress
        self._entries: dict[str, Entry] = {}
        self._questions: dict[int, Question] = {}
        self._numbers = itertools.count()
        self._life: Life | None = None
        self._readiness: asyncio.Future[Ready] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._restart_task: asyncio.Task[None] | None = None
        self._watchers: list[Callable[[Stats], None]] = []
        self._inquest = Inquest()
        self._trials = Trials(self._entries, self._submit, lambda: self.restarting is not None)
        self._fruitless = 0
        self._stopping = False
        #: Set when the engine runs and has its configuration; it is not ready yet.
        self.launched = asyncio.Event()
        self.ready: Ready | None = None
        self.stats = Stats()
        self.dead: EngineError | None = None
        #: Why the engine is being started again just now, and how often it was.
        self.restarting: EngineError | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The engine process; None when it runs as a thread."""
        return self._life.pid if self._life else None

    def watch(self, see: Callable[[Stats], None]) -> None:
        """Call ``see`` with the engine's state after every step."""
        self._watchers.append(see)

    async def start(self) -> Ready:
        """Start the engine and wait until it can serve; raises the engine's own error where it cannot."""
        try:
            self.ready = await self._live()
        except BaseException:
            await self.stop()
            raise
        if self._config.server.frontend_multiprocessing:
            self._spawn(self._watch())
        return self.ready

    async def generate(self, request: Request) -> AsyncIterator[Output]:
        """The outputs of a request until its finish reason. Leaving the iterator early aborts the request.

        Raises the engine's error when it dies for good meanwhile.
        """
        self._check_alive()
        entry = self._entries[request.id] = Entry(request)
        finished = False
        try:
            if self.restarting is None and not self._trials.holding:
                self._submit(entry)
            while not finished:
                output = await entry.queue.get()
                if isinstance(output, EngineError):
                    finished = True
                    raise output
                finished = output.finish_reason is not None
                yield output
        finally:
            self._entries.pop(request.id, None)
            entry.proven.set()
            if not finished and self.dead is None and self._life is not None:
                self._life.send(Abort([request.id]))

    async def call(self, method: str, **arguments: Any) -> Any:
        """A named operation of the engine (``stats``, ``reset_prefix_cache`` …); raises ``EngineError`` for an unknown one."""
        self._check_alive()
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        message = Call(number, method, arguments)
        self._questions[number] = Question(message, answer)
        try:
            if self.restarting is None and self._life is not None:
                self._life.send(message)
            return await answer
        finally:
            self._questions.pop(number, None)

    async def stop(self) -> None:
        """End the engine; running requests end with an error. May be called twice."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._life is not None:
            await self._life.stop()
        self._fail(self.dead or WorkerDied("the engine was stopped."))

    async def _live(self) -> Ready:
        """Begin a life of the engine and wait until it is ready."""
        self._readiness = asyncio.get_running_loop().create_future()
        self._life = Life(self._config, self._receive, self._ended)
        await self._life.begin()
        self.launched.set()
        ready = await self._readiness
        if self._life.death is not None:
            # It died before anybody could notice that it was ready.
            raise self._life.death.error
        return ready

    def _submit(self, entry: Entry) -> None:
        if self._life is not None:
            self._life.send(Add(entry.send()))

    def _receive(self, life: Life, message: FromEngine) -> None:
        if life is not self._life:
            return
        match message:
            case Outputs():
                self._deliver(message)
            case Returned():
                self._answer(message)
            case Ready():
                life.ready = True
                if self._readiness is not None and not self._readiness.done():
                    self._readiness.set_result(message)
            case Progress():
                if self._progress is not None:
                    self._progress(message)
            case Alive(busy):
                self._check_step(life, busy)
            case Failed():
                raise AssertionError("a life keeps its failure until its end")

    def _deliver(self, message: Outputs) -> None:
        if message.stats is not None:
            self.stats = message.stats
            for see in self._watchers:
                see(message.stats)
        for output in message.outputs:
            self._fruitless = 0
            if (entry := self._entries.get(output.id)) is not None:
                entry.deliver(output)

    def _check_step(self, life: Life, busy: float) -> None:
        limit = self._config.server.step_timeout
        if busy > limit:
            error = WorkerDied(f"one step of the engine took longer than --step-timeout {limit:g} s.")
            life.kill(error, time.monotonic() - busy)

    def _answer(self, message: Returned) -> None:
        question = self._questions.get(message.id)
        if question is None or question.answer.done():
            return
        if message.error is None:
            question.answer.set_result(message.value)
        else:
            question.answer.set_exception(EngineError(message.error))

    def _ended(self, life: Life, death: Death) -> None:
        """The connection ended, asked for or not."""
        if life is not self._life:
            return
        error = death.error
        if self._readiness is not None and not self._readiness.done():
            self._readiness.set_exception(error)
        elif self._stopping or not self._config.server.frontend_multiprocessing or not self._config.server.restart:
            self._fail(error)
        elif self.restarting is None:
            self.restarting = _gone(error)
            self._part(death)
            # One that still gives requests back sees it and starts over.
            if self._restart_task is None or self._restart_task.done():
                self._restart_task = self._spawn(self._restart())

    async def _restart(self) -> None:
        """Start the engine again and give it back its requests, as often as it takes and makes sense."""
        while self.restarting is not None:
            error, began = self.restarting, time.monotonic()
            death = self._life.death if self._life is not None else None
            # Being killed from outside, however often, is no reason to give up.
            self._fruitless += death is None or death.own
            log.error("%s Starting the engine again for %d requests.", error, len(self._entries))
            try:
                if self._fruitless > _FRUITLESS_STARTS:
                    raise error
                if self._life is not None:
                    await self._life.stop()
                self.ready = await self._live()
            except EngineError as failed:
                if self._fruitless > _FRUITLESS_STARTS:
                    self._fail(failed)
                    return
                self.restarting = _gone(failed)
                await asyncio.sleep(min(_PAUSE * max(1, self._fruitless), _LONGEST_PAUSE))
                continue
            self.restarts += 1
            self.restarting = None
            log.info("The engine serves again after %.1f s.", time.monotonic() - began)
            for question in list(self._questions.values()):
                if self._life is not None:
                    self._life.send(question.message)
            await self._trials.run()

    def _part(self, death: Death) -> None:
        """A life is over: requests and operations that ended it too often fail, the others wait for the next."""
        for entry in self._inquest.hold(self._entries.values(), death):
            del self._entries[entry.request.id]
            entry.fail(EngineError(f"this request ended the engine process again and again; the last time: {death.error}"))
        for entry in self._entries.values():
            entry.lose_life()
        for question in self._questions.values():
            question.deaths += death.own
            if question.deaths >= _DEATHS_OF_QUESTION and not question.answer.done():
                text = f"the engine process ended {question.deaths} times before it answered {question.message.method!r}; the last time: "
                question.answer.set_exception(EngineError(f"{text}{death.error}"))

    async def _watch(self) -> None:
        """An engine that is silent is frozen; one that loads may be silent, unless it is stopped."""
        limit = self._config.server.silence_timeout
        while True:
            await asyncio.sleep(_LOOK)
            life = self._life
            if life is None or time.monotonic() - life.heard <= limit:
                continue
            if life.ready or (life.pid is not None and stopped(life.pid)):
                error = WorkerDied(f"the engine process was silent for --engine-silence-timeout {limit:g} s.")
                life.kill(error, life.heard + _BEAT)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _fail(self, error: EngineError) -> None:
        """Remember why the engine no longer serves, and tell everybody who waits."""
        self.dead = self.dead or _gone(error)
        self.restarting = None
        for entry in self._entries.values():
            entry.fail(self.dead)
        waiting: list[asyncio.Future[Any]] = [question.answer for question in self._questions.values()]
        if self._readiness is not None:
            waiting.append(self._readiness)
        for future in waiting:
            if not future.done():
                future.set_exception(self.dead)
                future.exception()  # whoever waited may have given up: then nobody is to be told

    def _check_alive(self) -> None:
        if self.dead is not None:
            raise self.dead
        if self._life is None:
            raise EngineError("the engine is not started.", fix="await client.start()")


def _gone(error: EngineError) -> WorkerDied:
    """Whatever the reason is: there is no engine (503), rather than a fault of the request that learns it."""
    return error if isinstance(error, WorkerDied) else WorkerDied(str(error), fix=error.fix)
