"""A request's sequences: started together, assembled into choices, counted, and aborted when nobody waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from engine.assemble.choice import Choice, ChoiceDelta, rank_choices
from engine.errors import EngineError, RequestError
from engine.messages import Output
from engine.metrics import RequestTimes
from engine.plugin.request import FinishReason, Request, SamplingParams
from engine.plugin.step import NOTHING_ALLOWED
from engine.render.params import choice_seed
from engine.server.parsing import Parsing
from engine.server.service import Service
from engine.tracing import Generated, RequestTrace, current

Event = tuple[int, ChoiceDelta]


class GenerationFailed(EngineError):
    """A sequence failed in the engine; the engine goes on."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate: prompts with the params of each (``max_tokens`` a number). ``scoring``: the one token made is thrown away.
    ``stream``: every sequence brings its prompt's log-probabilities itself; otherwise the first of each prompt does.
    ``turn``: :meth:`Service.take_turn` at its arrival."""

    prompts: list[list[int]]
    params: list[SamplingParams]
    endpoint: str
    model: str
    arrival: float
    turn: int
    priority: int = 0
    cache_salt: str | None = None
    scoring: bool = False
    stream: bool = False
    parsing: Parsing | None = None


class Generation:
    """Runs a job. Sequence ``p * width + j`` is the j-th of prompt p."""

    def __init__(self, service: Service, job: Job) -> None:
        first = job.params[0]
        self.job = job
        self._trace = current() or service.begin_trace(job.arrival)
        self._error: str | None = None
        self.count = first.n
        self.width = max(first.n, first.best_of or first.n)
        self._service = service
        group = service.new_id()
        self._requests = [
            self._request(group, place, index) for place in range(len(job.prompts)) for index in range(self.width)
        ]
        self._times = [RequestTimes(arrival=job.arrival) for _ in self._requests]
        self.choices = [self._choice(request) for request in self._requests]

    async def events(self) -> AsyncIterator[Event]:
        """What is new, with the number of its sequence. Closing the iterator aborts what still runs."""
        self._service.admission.check()
        for params in self.job.params:
            self._service.metrics.asked(params)
        try:
            if len(self._requests) == 1:
                stream = self._sequence(0)
                try:
                    async for event in stream:
                        yield event
                finally:
                    await close(stream)
                return
            queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(maxsize=2 * len(self._requests))
            tasks = [asyncio.create_task(self._pump(index, queue)) for index in range(len(self._requests))]
            try:
                running = len(tasks)
                while running:
                    item = await queue.get()
                    if item is None:
                        running -= 1
                    elif isinstance(item, BaseException):
                        raise item
                    else:
                        yield item
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except Exception as error:
            self._error = str(error)
            raise
        finally:
            if self._trace is not None:
                self._tell(self._trace)

    def reasoning_tokens(self) -> int | None:
        """How many of the generated tokens were reasoning; None where nothing tells reasoning apart."""
        parsing = self.job.parsing
        return sum(choice.reasoning_tokens for choice in self.choices) if parsing is not None and parsing.reasons else None

    def returned(self, prompt: int) -> list[int]:
        """The sequences of a prompt that are answered: the first ``n``, or the best of ``best_of``."""
        start = prompt * self.width
        if self.width == self.count:
            return list(range(start, start + self.count))
        return [start + index for index in rank_choices(self.choices[start : start + self.width], self.count)]

    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(map(len, self.job.prompts))

    def completion_tokens(self) -> int:
        """Every token that was generated."""
        return 0 if self.job.scoring else sum(choice.tokens for choice in self.choices)

    def cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache, counted once per prompt."""
        return sum(self.choices[index].cached_tokens for index in range(0, len(self.choices), self.width))

    def _request(self, group: str, place: int, index: int) -> Request:
        prompt, params = self.job.prompts[place], self.job.params[place]
        drawn = self._service.seed(self.job.turn, place * self.width + index)
        ranked = self.width > self.count
        own = msgspec.structs.replace(
            params,
            n=1,
            best_of=None,
            seed=drawn if params.seed is None else choice_seed(params.seed, index),
            logprobs=0 if ranked and params.logprobs is None else params.logprobs,
            prompt_logprobs=params.prompt_logprobs if index == 0 or self.job.stream else None,
        )
        return Request(
            id=self._service.new_id(),
            prompt_token_ids=prompt,
            params=own,
            arrival=self.job.arrival,
            eos_token_ids=self._service.eos_token_ids,
            priority=self.job.priority,
            group=group if self.width > 1 else None,
            cache_salt=self.job.cache_salt,
        )

    def _choice(self, request: Request) -> Choice:
        parsing, prompt = self.job.parsing, request.prompt_token_ids
        if parsing is None:
            return Choice(self._service.tokenizer, request.params, prompt)
        parser = parsing.start(prompt, None if self._trace is None else self._trace.meter)
        return Choice(self._service.tokenizer, request.params, prompt, parser=parser, shown=parsing.shown)

    def _tell(self, trace: RequestTrace) -> None:
        """Add this generation to the request's trace."""
        job = self.job
        for times in self._times:
            if not times.ended:  # its task was cancelled before it began
                times.end(time.monotonic())
        made = Generated(
            model=job.model, endpoint=job.endpoint, params=job.params[0], prompt_tokens=self.prompt_tokens(),
            completion_tokens=self.completion_tokens(), times=self._times, error=self._error,
        )  # fmt: skip
        trace.generated.append(made)
        if current() is None:
            self._service.end_trace(trace)

    async def _pump(self, index: int, queue: asyncio.Queue[Event | BaseException | None]) -> None:
        stream = self._sequence(index)
        try:
            async for event in stream:
                await queue.put(event)
            await queue.put(None)
        except Exception as error:  # noqa: BLE001 - raised again by the task that reads the queue
            await queue.put(error)
        finally:
            await close(stream)

    async def _sequence(self, index: int) -> AsyncIterator[Event]:
        request, choice = self._requests[index], self.choices[index]
        metrics = self._service.metrics
        times = self._times[index]
        ticket = self._service.admission.enter(len(request.prompt_token_ids))
        outputs = self._service.client.generate(request)
        reason = FinishReason.ABORT.value
        try:
            async for output in outputs:
                if output.token_ids or output.finish_reason is not None:
                    ticket.leave()
                times.see(output, time.monotonic())
                metrics.progressed(output, times)
                if output.finish_reason is FinishReason.ERROR:
                    reason = FinishReason.ERROR.value
                    raise _failure(self._service, output)
                delta = choice.feed(output)
                if delta.finish_reason is not None:
                    reason = delta.finish_reason
                yield index, delta
                if delta.finish_reason is not None:
                    return
            raise GenerationFailed("Generating failed: the engine ended the sequence without a reason.")
        finally:
            ticket.leave()
            await close(outputs)
            times.end(time.monotonic())
            metrics.finished(self.job, request, choice, times, reason)


async def close(stream: AsyncIterator[object]) -> None:
    """End an iterator that is not read any more."""
    finish = getattr(stream, "aclose", None)
    if finish is not None:
        with contextlib.suppress(RuntimeError):
            await finish()


def _failure(service: Service, output: Output) -> EngineError:
    """The error behind an output that ended with one: the request's own, a plugin's where it names one, or the engine's."""
    cause = output.error or "the engine gave no reason."
    if cause == NOTHING_ALLOWED:
        return RequestError(f"Generating failed: {cause}.", code="constraints_exclude_each_other")
    return service.faults.of_output(cause, service.plugin) or GenerationFailed(f"Generating failed: {cause}")
