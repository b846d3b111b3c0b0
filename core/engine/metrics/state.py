"""What the engine process and the queue before it look like, whenever somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.messages import Stats

#: Counters of :class:`engine.messages.Stats` that begin anew with each life of the engine process.
_COUNTED = ("preemptions", "prefix_queries", "prefix_hits", "steps", "step_tokens")


class Queue(Protocol):
    """What waits for its first output (:class:`engine.server.admission.Admission`)."""

    @property
    def requests(self) -> int:
        """Sequences."""

    @property
    def tokens(self) -> int:
        """Their prompt tokens."""


class Totals:
    """The engine's counters over all its lives: a life that ends takes nothing back."""

    def __init__(self) -> None:
        self.now = Stats()
        self.life = 0
        self._before = dict.fromkeys(_COUNTED, 0)

    def see(self, stats: Stats, life: int) -> tuple[int, int]:
        """Steps and tokens since the last call. ``life``: how many lives of the engine were before this one."""
        if life != self.life:
            self._before = {name: self.total(name) for name in _COUNTED}
            self.now, self.life = Stats(), life
        before, self.now = self.now, stats
        return stats.steps - before.steps, stats.step_tokens - before.step_tokens

    def total(self, name: str) -> int:
        """A counter since the server's start."""
        return int(self._before[name] + getattr(self.now, name))


class StateCollector(Collector):
    """Shows the state. ``hidden``: also under the names that are no longer shown."""

    def __init__(self, totals: Totals, model: str, *, hidden: bool) -> None:
        self._totals = totals
        self._model = model
        self._hidden = hidden
        self.queue: Queue | None = None
        self.restarts = 0

    def collect(self) -> Iterator[Metric]:
        """The families, made for the occasion."""
        for name, about, value in self._gauges():
            gauge = GaugeMetricFamily(name, about, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        for name, about, value in self._counters():
            counter = CounterMetricFamily(name, about, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter

    def _gauges(self) -> Iterator[tuple[str, str, float]]:
        now, queue = self._totals.now, self.queue
        yield "vllm:num_requests_running", "Sequences being computed.", now.running
        yield "vllm:num_requests_waiting", "Sequences in the engine's queue.", now.waiting
        yield "vllm:num_requests_swapped", "Sequences whose pages are in host memory.", now.swapped
        yield "vllm:gpu_cache_usage_perc", "KV cache in use, 0 to 1.", _share(now.pages_used, now.pages)
        yield "vllm:cpu_cache_usage_perc", "Host pages in use, 0 to 1.", _share(now.host_pages_used, now.host_pages)
        yield "engine:kv_pages", "Pages of the KV cache.", now.pages
        yield "engine:kv_pages_used", "Pages of the KV cache that sequences hold.", now.pages_used
        if queue is not None:
            yield "engine:queued_requests", "Sequences that have been given nothing yet; --max-queued-requests bounds it.", queue.requests
            yield "engine:queued_prompt_tokens", "Their prompt tokens; --max-queued-tokens bounds it.", queue.tokens
        if self._hidden:
            share = _share(self._totals.total("prefix_hits"), self._totals.total("prefix_queries"))
            yield "vllm:gpu_prefix_cache_hit_rate", "Prefix cache hits by lookups since the start, 0 to 1 (hidden since 0.0).", share

    def _counters(self) -> Iterator[tuple[str, str, float]]:
        total = self._totals.total
        yield "vllm:num_preemptions", "Preemptions.", total("preemptions")
        yield "vllm:gpu_prefix_cache_queries", "Blocks looked up in the prefix cache.", total("prefix_queries")
        yield "vllm:gpu_prefix_cache_hits", "Blocks found there.", total("prefix_hits")
        yield "engine:restarts", "Times that the engine process was started again.", self.restarts
        yield "engine:steps", "Steps of the engine.", total("steps")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
