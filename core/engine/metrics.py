"""Prometheus metrics of one server, under the names that vLLM dashboards use, and the statistics line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.messages import Output, Stats
from engine.plugin.contracts.serving import RequestRecord
from engine.plugin.request import FinishReason, Request, SamplingParams

if TYPE_CHECKING:
    from engine.assemble.choice import Choice
    from engine.config import EngineConfig

FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
CHOICES = (1, 2, 5, 10, 20)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

log = logging.getLogger("engine.stats")
Observer = Callable[[RequestRecord], None]


class StatsSource(Protocol):
    """What has the engine's latest state."""

    @property
    def stats(self) -> Stats:
        """The latest state."""


class Described(Protocol):
    """What a finished request belongs to."""

    @property
    def endpoint(self) -> str:
        """completions, chat …"""

    @property
    def model(self) -> str:
        """The served name that was asked for."""


class RequestTimes:
    """When what happened to a sequence, in monotonic seconds. Queue, prefill and decode add up to the whole."""

    def __init__(self, arrival: float) -> None:
        self.arrival = arrival
        self.started = 0.0
        self.first = 0.0
        self.last = 0.0
        self.gap = 0.0

    def see(self, output: Output, now: float) -> None:
        """Take notice of an output."""
        if output.started and not self.started:
            self.started = max(output.started, self.arrival)
        if output.token_ids:
            self.gap = (now - self.last) / len(output.token_ids) if self.last else 0.0
            self.first = self.first or now
            self.last = now


class Metrics:
    """The registry of one server. With --disable-log-stats it counts nothing and there is no statistics line."""

    def __init__(self, config: EngineConfig, source: StatsSource, observers: Sequence[Observer] = ()) -> None:
        self.registry = CollectorRegistry()
        self.enabled = not config.server.disable_log_stats
        self._source = source
        self._model = config.model.served_names[0]
        self._observers = tuple(observers)
        self._steps = (0, 0)
        self._line = (time.monotonic(), 0, 0)
        self._prompt_count = self._output_count = 0
        self._define(config)
        self.registry.register(_StatsCollector(source, self._model))
        self._shown = self.registry if self.enabled else CollectorRegistry()
        ProcessCollector(registry=self._shown)

    def page(self) -> bytes:
        """The text that Prometheus scrapes: the process's own metrics, and the engine's unless --disable-log-stats."""
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
            if times.gap:
                for _ in output.token_ids:
                    self._per_token.observe(times.gap)
            else:
                self._first_token.observe(times.first - times.arrival)
        self._see_steps(self._source.stats)

    def finished(self, job: Described, request: Request, choice: Choice, times: RequestTimes, reason: str) -> None:
        """A sequence ended, whatever the ``reason``."""
        now = time.monotonic()
        prompt = len(request.prompt_token_ids)
        if self.enabled:
            self._observe_end(request, choice, times, reason, now)
        if self._observers:
            record = RequestRecord(
                id=request.id,
                model=job.model,
                prompt_tokens=prompt,
                output_tokens=choice.tokens,
                cached_tokens=choice.cached_tokens,
                finish_reason=reason,
                queue_time=max(times.started - times.arrival, 0.0),
                ttft=max(times.first - times.arrival, 0.0),
                e2e=now - times.arrival,
                endpoint=job.endpoint,
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

    def _define(self, config: EngineConfig) -> None:
        lengths = _series(config.model.max_model_len)
        self._success = Counter(
            "vllm:request_success", "Finished requests.", ["model_name", "finished_reason"], registry=self.registry
        )
        for reason in FinishReason:
            self._success.labels(self._model, reason.value)
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens of finished requests.")
        self._output_tokens = self._counter("vllm:generation_tokens", "Generated tokens.")
        self._ignored = self._counter("engine:ignored_request_fields", "Request fields that the API does not have.")
        self._iteration = self._histogram(
            "vllm:iteration_tokens_total", "Tokens per engine step (steps seen together count with their mean).", STEP_TOKENS
        )
        self._first_token = self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", FIRST_TOKEN)
        self._per_token = self._histogram("vllm:time_per_output_token_seconds", "Between tokens.", PER_TOKEN)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "Arrival to end.", LATENCY)
        self._queue = self._histogram("vllm:request_queue_time_seconds", "Arrival to first step.", LATENCY)
        self._inference = self._histogram("vllm:request_inference_time_seconds", "First step to end.", LATENCY)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", "First step to first token.", LATENCY)
        self._decode = self._histogram("vllm:request_decode_time_seconds", "First token to end.", LATENCY)
        self._request_prompt = self._histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", lengths)
        self._request_output = self._histogram("vllm:request_generation_tokens", "Generated tokens per request.", lengths)
        self._max_generation = self._histogram(
            "vllm:request_max_num_generation_tokens", "Most tokens generated by a sequence of the request.", lengths
        )
        self._max_tokens = self._histogram("vllm:request_params_max_tokens", "max_tokens per prompt.", lengths)
        self._n = self._histogram("vllm:request_params_n", "n per prompt.", CHOICES)
        cache = config.cache
        names = {name: str(getattr(cache, name)) for name in cache.__struct_fields__}
        info = Gauge("vllm:cache_config_info", "The KV cache's settings.", ["model_name", *names], registry=self.registry)
        info.labels(self._model, *names.values()).set(1)

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(name, about, ["model_name"], registry=self.registry).labels(self._model)

    def _histogram(self, name: str, about: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(name, about, ["model_name"], buckets=tuple(buckets), registry=self.registry).labels(self._model)

    def _see_steps(self, stats: Stats) -> None:
        steps, tokens = stats.steps - self._steps[0], stats.step_tokens - self._steps[1]
        if steps > 0:
            self._steps = (stats.steps, stats.step_tokens)
            for _ in range(min(steps, 1000)):
                self._iteration.observe(tokens / steps)

    def _observe_end(self, request: Request, choice: Choice, times: RequestTimes, reason: str, now: float) -> None:
        prompt = len(request.prompt_token_ids)
        self._prompt_tokens.inc(prompt)
        self._prompt_count += prompt
        self._success.labels(self._model, FinishReason(reason).value).inc()
        self._request_prompt.observe(prompt)
        self._request_output.observe(choice.tokens)
        self._max_generation.observe(choice.tokens)
        self._e2e.observe(now - times.arrival)
        if times.started:
            self._queue.observe(times.started - times.arrival)
            self._inference.observe(now - times.started)
            if times.first:
                self._prefill.observe(times.first - times.started)
                self._decode.observe(now - times.first)


class _StatsCollector(Collector):
    """Shows the engine's state when it is asked for."""

    def __init__(self, source: StatsSource, model: str) -> None:
        self._source = source
        self._model = model

    def collect(self) -> Iterator[Metric]:
        stats = self._source.stats
        gauges = {
            "vllm:num_requests_running": ("Sequences being computed.", stats.running),
            "vllm:num_requests_waiting": ("Sequences in the queue.", stats.waiting),
            "vllm:num_requests_swapped": ("Sequences whose pages are in host memory.", stats.swapped),
            "vllm:gpu_cache_usage_perc": ("KV cache in use, 0 to 1.", stats.pages_used / stats.pages if stats.pages else 0.0),
            "vllm:cpu_cache_usage_perc": (
                "Host pages in use, 0 to 1.", stats.host_pages_used / stats.host_pages if stats.host_pages else 0.0,
            ),
        }  # fmt: skip
        counters = {
            "vllm:num_preemptions": ("Preemptions.", stats.preemptions),
            "vllm:gpu_prefix_cache_queries": ("Prefix cache lookups.", stats.prefix_queries),
            "vllm:gpu_prefix_cache_hits": ("Prefix cache hits.", stats.prefix_hits),
        }
        for name, (about, value) in gauges.items():
            gauge = GaugeMetricFamily(name, about, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        for name, (about, value) in counters.items():
            counter = CounterMetricFamily(name, about, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter


def _series(most: int) -> list[int]:
    """1, 2, 5, 10, 20 … up to ``most``."""
    found: list[int] = []
    scale = 1
    while scale <= most:
        found += [factor * scale for factor in (1, 2, 5) if factor * scale <= most]
        scale *= 10
    return found or [1]
