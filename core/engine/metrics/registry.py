"""The registry of one server: what is counted, when, and the statistics line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from engine.caller import CALLER
from engine.messages import Output, Stats
from engine.metrics.state import Queue, StateCollector, Totals
from engine.metrics.times import RequestTimes
from engine.plugin.contracts.serving import RequestRecord
from engine.plugin.request import FinishReason, Request, SamplingParams

if TYPE_CHECKING:
    from engine.assemble.choice import Choice
    from engine.config import EngineConfig

FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
CHOICES = (1, 2, 5, 10, 20)
MILLISECONDS = (10, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 60000)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

#: This release; with its minor number the names that it hides change.
RELEASE = (0, 1)

log = logging.getLogger("engine.stats")
Observer = Callable[[RequestRecord], None]


class StatsSource(Protocol):
    """What hears of the engine's state."""

    @property
    def stats(self) -> Stats:
        """The latest state."""

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""

    def watch(self, see: Callable[[Stats], None]) -> None:
        """Call ``see`` with the state after every step."""


class Described(Protocol):
    """What a finished request belongs to."""

    @property
    def endpoint(self) -> str:
        """completions, chat …"""

    @property
    def model(self) -> str:
        """The served name that was asked for."""


class Metrics:
    """The registry of one server. With --disable-log-stats it counts nothing and there is no statistics line."""

    def __init__(self, config: EngineConfig, source: StatsSource, observers: Sequence[Observer] = ()) -> None:
        self.registry = CollectorRegistry()
        self.enabled = not config.server.disable_log_stats
        self._source = source
        self._model = config.model.served_names[0]
        self._observers = tuple(observers)
        self._line = (time.monotonic(), 0, 0)
        self._prompt_count = self._output_count = 0
        self._details = config.observability.details
        self._totals = Totals()
        hidden = shows_hidden(config.observability.hidden_since)
        self._state = StateCollector(self._totals, self._model, hidden=hidden)
        self._define(config, hidden)
        self.registry.register(self._state)
        self._shown = self.registry if self.enabled else CollectorRegistry()
        ProcessCollector(registry=self._shown)
        if self.enabled:
            self._see(source.stats)
            source.watch(self._see)

    def watch_queue(self, queue: Queue) -> None:
        """Show also what waits for its first output."""
        self._state.queue = queue

    def page(self) -> bytes:
        """The text that Prometheus scrapes: the process's own metrics, and the engine's unless --disable-log-stats."""
        self._state.restarts = self._source.restarts
        return generate_latest(self._shown)

    def asked(self, params: SamplingParams) -> None:
        """A prompt is to be answered."""
        if self.enabled:
            if params.max_tokens is not None:
                self._max_tokens.observe(params.max_tokens)
            self._n.observe(params.n)

    def progressed(self, output: Output, times: RequestTimes) -> None:
        """A sequence got an output (which ``times`` has seen)."""
        if not self.enabled:
            return
        if output.token_ids:
            self._output_tokens.inc(len(output.token_ids))
            self._output_count += len(output.token_ids)
            if times.gap is None:
                self._first_token.observe(times.first - times.arrival)
            else:
                for _ in output.token_ids:
                    self._per_token.observe(times.gap)

    def finished(self, job: Described, request: Request, choice: Choice, times: RequestTimes, reason: str) -> None:
        """A sequence ended (``times`` knows when), whatever the ``reason``."""
        prompt = len(request.prompt_token_ids)
        if self.enabled:
            self._observe_end(request, choice, times, reason)
        if self._observers:
            record = RequestRecord(
                id=request.id,
                model=job.model,
                prompt_tokens=prompt,
                output_tokens=choice.tokens,
                cached_tokens=choice.cached_tokens,
                finish_reason=reason,
                queue_time=times.parts()[0],
                ttft=max(times.first - times.arrival, 0.0),
                e2e=times.whole,
                endpoint=job.endpoint,
                key=CALLER.get(),
            )
            for observe in self._observers:
                observe(record)

    def ignored(self, count: int) -> None:
        """A request had so many unknown fields."""
        if self.enabled and count:
            self._ignored.inc(count)

    def line(self) -> str | None:
        """The statistics since the last call, or None where nothing happened and nothing runs."""
        now = time.monotonic()
        before, prompts, outputs = self._line
        stats = self._source.stats
        seconds = max(now - before, 1e-6)
        made = (self._prompt_count - prompts, self._output_count - outputs)
        self._line = (now, self._prompt_count, self._output_count)
        if not any(made) and not stats.running and not stats.waiting:
            return None
        used = 100.0 * stats.pages_used / stats.pages if stats.pages else 0.0
        hits = 100.0 * stats.prefix_hits / stats.prefix_queries if stats.prefix_queries else 0.0
        return (
            f"Prompt throughput: {made[0] / seconds:.1f} tokens/s, generation throughput: {made[1] / seconds:.1f} tokens/s, "
            f"running: {stats.running}, waiting: {stats.waiting}, swapped: {stats.swapped}, KV cache usage: {used:.1f}%, "
            f"prefix cache hit rate: {hits:.1f}%"
        )

    def _define(self, config: EngineConfig, hidden: bool) -> None:
        lengths = _series(config.model.max_model_len)
        self._success = Counter(
            "vllm:request_success", "Finished requests.", ["model_name", "finished_reason"], registry=self.registry
        )
        for reason in FinishReason:
            self._success.labels(self._model, reason.value)
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens of finished requests.")
        self._output_tokens = self._counter("vllm:generation_tokens", "Generated tokens, also those after a stop string.")
        self._ignored = self._counter("engine:ignored_request_fields", "Request fields that the API does not have.")
        self._iteration = self._histogram(
            "vllm:iteration_tokens_total", "Tokens per engine step.", STEP_TOKENS
        )
        self._first_token = self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", FIRST_TOKEN)
        self._per_token = self._histogram("vllm:time_per_output_token_seconds", "Between two tokens of a sequence.", PER_TOKEN)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "Arrival to end; the sum of queue, prefill and decode.", LATENCY)
        self._queue = self._histogram("vllm:request_queue_time_seconds", "Arrival to first step, or to the end.", LATENCY)
        self._inference = self._histogram("vllm:request_inference_time_seconds", "First step to end; prefill and decode.", LATENCY)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", "First step to first token, or to the end.", LATENCY)
        self._decode = self._histogram("vllm:request_decode_time_seconds", "First token to end.", LATENCY)
        self._request_prompt = self._histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", lengths)
        self._request_output = self._histogram("vllm:request_generation_tokens", "Generated tokens per request.", lengths)
        self._max_generation = self._histogram(
            "vllm:request_max_num_generation_tokens", "Most tokens generated by a sequence of the request.", lengths
        )
        self._max_tokens = self._histogram("vllm:request_params_max_tokens", "max_tokens per prompt.", lengths)
        self._n = self._histogram("vllm:request_params_n", "n per prompt.", CHOICES)
        self._older_queue = self._histogram(
            "vllm:time_in_queue_requests", "request_queue_time_seconds by its older name (hidden since 0.0).", LATENCY
        ) if hidden else None  # fmt: skip
        self._forward = self._histogram(
            "vllm:model_forward_time_milliseconds", "A sequence's forward passes (--collect-detailed-traces model).", MILLISECONDS
        ) if "model" in self._details else None  # fmt: skip
        self._execute = self._histogram(
            "vllm:model_execute_time_milliseconds", "A sequence's steps (--collect-detailed-traces worker).", MILLISECONDS
        ) if "worker" in self._details else None  # fmt: skip
        cache = config.cache
        names = {name: str(getattr(cache, name)) for name in cache.__struct_fields__}
        info = Gauge("vllm:cache_config_info", "The KV cache's settings.", ["model_name", *names], registry=self.registry)
        info.labels(self._model, *names.values()).set(1)

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(name, about, ["model_name"], registry=self.registry).labels(self._model)

    def _histogram(self, name: str, about: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(name, about, ["model_name"], buckets=tuple(buckets), registry=self.registry).labels(self._model)

    def _see(self, stats: Stats) -> None:
        steps, tokens = self._totals.see(stats, self._source.restarts)
        # One step per message; a server that begins to watch later counts those before with their mean.
        for _ in range(steps):
            self._iteration.observe(tokens / steps)

    def _observe_end(self, request: Request, choice: Choice, times: RequestTimes, reason: str) -> None:
        prompt = len(request.prompt_token_ids)
        self._prompt_tokens.inc(prompt)
        self._prompt_count += prompt
        self._success.labels(self._model, FinishReason(reason).value).inc()
        self._request_prompt.observe(prompt)
        self._request_output.observe(choice.tokens)
        self._max_generation.observe(choice.tokens)
        queue, prefill, decode = times.parts()
        self._e2e.observe(times.whole)
        self._queue.observe(queue)
        if self._older_queue is not None:
            self._older_queue.observe(queue)
        if times.started:
            self._inference.observe(prefill + decode)
            self._prefill.observe(prefill)
        if times.first:
            self._decode.observe(decode)
        if times.spent is not None:
            if self._forward is not None:
                self._forward.observe(1000 * times.spent.forward)
            if self._execute is not None:
                self._execute.observe(1000 * times.spent.execute)


def shows_hidden(since: str | None) -> bool:
    """Whether metrics that were hidden with this release are shown: where ``since`` is the minor release before it."""
    if since is None:
        return False
    major, minor = since.split(".")
    own_major, own_minor = RELEASE
    return (int(major), int(minor)) == (own_major, own_minor - 1)


def _series(most: int) -> list[int]:
    """1, 2, 5, 10, 20 … up to ``most``."""
    found: list[int] = []
    scale = 1
    while scale <= most:
        found += [factor * scale for factor in (1, 2, 5) if factor * scale <= most]
        scale *= 10
    return found or [1]
