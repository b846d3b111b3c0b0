"""An engine for tests of the server: deterministic tokens, log-probabilities, delays, deaths."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from engine.errors import EngineError
from engine.messages import Output, Stats
from engine.plugin import FinishReason, Request, TokenLogprobs


def next_token(tokens: list[int], seed: int, greedy: bool, size: int) -> int:
    """A printable byte-level token that depends on everything before it (and on the seed unless greedy)."""
    state = 0 if greedy else seed % 9973
    for token in tokens[-8:]:
        state = (state * 31 + token + 7) % 1_000_003
    return 33 + state % min(90, size - 33)


def logprobs_of(token: int, top: int, size: int) -> TokenLogprobs:
    """``token`` is the best; alternatives follow it."""
    ids = [(token + step) % size for step in range(max(top, 1))]
    values = [-0.1 * (step + 1) - math.log(3) for step in range(max(top, 1))]
    return TokenLogprobs(token, values[0], 1, ids[:top], values[:top])


class FakeClient:
    """Plays :class:`engine.client.EngineClient`. ``script``: output tokens for every request instead of made-up ones.

    ``delay``: seconds per step. ``per_step``: tokens per output. ``aborted``, ``finished``, ``seen`` tell what happened.
    """

    def __init__(self, *, size: int = 256, script: list[int] | None = None, delay: float = 0.0, per_step: int = 1) -> None:
        self.size, self.script, self.delay, self.per_step = size, script, delay, per_step
        self.stats = Stats(pages=100, pages_used=7, prefix_queries=10, prefix_hits=5)
        self.dead: EngineError | None = None
        self.restarting: EngineError | None = None
        self.fail_after: int | None = None
        self.running: set[str] = set()
        self.aborted: list[str] = []
        self.finished: list[str] = []
        self.seen: list[Request] = []
        self.made: dict[str, int] = {}
        self.restarts = 0
        self.watchers: list[Callable[[Stats], None]] = []
        self.answers: dict[str, Callable[..., Any]] = {}

    def watch(self, see: Callable[[Stats], None]) -> None:
        self.watchers.append(see)

    def stepped(self, stats: Stats) -> None:
        """The engine's state after a step."""
        self.stats = stats
        for see in self.watchers:
            see(stats)

    async def call(self, method: str, **arguments: Any) -> Any:
        """What ``answers`` has for the method, called with the arguments."""
        return [self.answers[method](**arguments)]

    async def generate(self, request: Request) -> AsyncIterator[Output]:
        self.seen.append(request)
        self.running.add(request.id)
        try:
            async for output in self._outputs(request):
                yield output
            self.finished.append(request.id)
        finally:
            self.running.discard(request.id)
            if request.id not in self.finished:
                self.aborted.append(request.id)

    async def _outputs(self, request: Request) -> AsyncIterator[Output]:
        params, now = request.params, time.monotonic()
        prompt = list(request.prompt_token_ids)
        if params.prompt_logprobs is not None:
            half = len(prompt) // 2 or 1
            entries = [logprobs_of(token, params.prompt_logprobs, self.size) for token in prompt[1:]]
            yield Output(id=request.id, prompt_logprobs=entries[:half], queued=now, started=now)
            yield Output(id=request.id, prompt_logprobs=entries[half:])
        made: list[int] = []
        step: list[int] = []
        while True:
            await asyncio.sleep(self.delay)
            if self.dead is not None:
                raise self.dead
            token = self._token(request, prompt + made, len(made))
            made.append(token)
            step.append(token)
            self.made[request.id] = len(made)
            if self.fail_after is not None and len(made) > self.fail_after:
                yield Output(id=request.id, finish_reason=FinishReason.ERROR, error="the logits are not finite")
                return
            reason, stop = self._end(request, token, made)
            if reason is None and len(step) < self.per_step:
                continue
            entries = None if params.logprobs is None else [logprobs_of(item, params.logprobs, self.size) for item in step]
            yield Output(
                id=request.id, token_ids=step, logprobs=entries, finish_reason=reason, stop_reason=stop, queued=now, started=now
            )
            step = []
            if reason is not None:
                return

    def _token(self, request: Request, tokens: list[int], made: int) -> int:
        if self.script is not None:
            return self.script[made] if made < len(self.script) else request.eos_token_ids[0]
        return next_token(tokens, request.params.seed or 0, request.params.temperature == 0.0, self.size)

    def _end(self, request: Request, token: int, made: list[int]) -> tuple[FinishReason | None, int | None]:
        params = request.params
        if len(made) > params.min_tokens or len(made) == params.max_tokens:
            if token in request.eos_token_ids and not params.ignore_eos:
                return FinishReason.STOP, None
            if token in params.stop_token_ids:
                return FinishReason.STOP, token
        return (FinishReason.LENGTH, None) if len(made) == params.max_tokens else (None, None)
