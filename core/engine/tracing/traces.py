"""From what happened to spans: names and attributes as vLLM has them, and one span for each plugin's part."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig
from engine.tracing.request import Generated, RequestTrace

if TYPE_CHECKING:
    from engine.metrics.times import RequestTimes
    from engine.plugin.api import Choice

#: Sequences of a request that get spans of their own for queue, prefill and decode.
SHOWN_SEQUENCES = 8
CLOSING_SECONDS = 5.0


class Traces:
    """The sender of spans. One per server."""

    def __init__(self, config: EngineConfig) -> None:
        from engine.tracing._otlp import Sender

        self._config = config
        settings = config.observability
        self._sender = Sender(settings.traces_endpoint or "", settings.traces_protocol)

    @classmethod
    def of(cls, config: EngineConfig) -> Traces | None:
        """None where --otlp-traces-endpoint is not given."""
        return cls(config) if config.observability.traces_endpoint is not None else None

    def send(self, trace: RequestTrace, ended: float) -> None:
        """Queue the spans of a request that ended at ``ended``; a thread sends them."""

        def moment(seconds: float) -> int:
            return trace.wall + round((seconds - trace.began) * 1e9)

        error = next((made.error for made in trace.generated if made.error), None)
        if error is None and trace.status >= 500:
            error = f"status {trace.status}"
        children: list[tuple[str, int, int, dict[str, Any]]] = []
        for piece in trace.pieces:
            children.append((piece.name, moment(piece.began), moment(piece.ended), self._plugin(piece.kind, piece.plugin)))
        for meter in trace.meters:
            if meter.calls:
                found = {**self._plugin(meter.kind, None), "engine.calls": meter.calls, "engine.busy_seconds": meter.busy}
                children.append(("parse", moment(meter.began), moment(meter.ended), found))
        for made in trace.generated:
            for number, times in enumerate(made.times[:SHOWN_SEQUENCES]):
                children += [(name, moment(start), moment(end), {"engine.sequence": number}) for name, start, end in _phases(times)]
        self._sender.send(trace.headers, moment(trace.began), moment(ended), self._attributes(trace), children, error)

    async def close(self) -> None:
        """Send what is left, as far as somebody takes it within CLOSING_SECONDS."""
        closing = threading.Thread(target=self._sender.close, name="traces", daemon=True)
        closing.start()
        end = time.monotonic() + CLOSING_SECONDS
        while closing.is_alive() and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _attributes(self, trace: RequestTrace) -> dict[str, Any]:
        found: dict[str, Any] = {"gen_ai.request.id": trace.request_id}
        if trace.path:
            found |= {"url.path": trace.path, "http.response.status_code": trace.status}
        for made in trace.generated:
            found |= self._generated(made)
        return found

    def _generated(self, made: Generated) -> dict[str, Any]:
        params = made.params
        found: dict[str, Any] = {
            "gen_ai.response.model": made.model, "gen_ai.operation.name": made.endpoint, "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p, "gen_ai.request.n": params.n, "gen_ai.usage.num_sequences": len(made.times),
            "gen_ai.usage.prompt_tokens": made.prompt_tokens, "gen_ai.usage.completion_tokens": made.completion_tokens,
        }  # fmt: skip
        if params.max_tokens is not None:
            found["gen_ai.request.max_tokens"] = params.max_tokens
        return found | _latencies(made, self._config.observability.details)

    def _plugin(self, kind: str, name: str | None) -> dict[str, Any]:
        choice: Choice | None = self._config.guided.choices.get(name) if name else None
        choice = choice or self._config.choices.get(kind)
        found = {"engine.plugin.kind": kind}
        if choice is not None:
            distribution, _, version = choice.distribution.partition(" ")
            found |= {
                "engine.plugin.name": choice.name, "engine.plugin.distribution": distribution, "engine.plugin.version": version
            }
        return found


def _latencies(made: Generated, details: tuple[str, ...]) -> dict[str, Any]:
    """Seconds of the request: until its first sequence began and had a token, until the last one ended."""
    if not made.times:
        return {}
    arrival = min(times.arrival for times in made.times)
    found: dict[str, Any] = {
        "gen_ai.latency.time_in_queue": min(times.parts()[0] for times in made.times),
        "gen_ai.latency.e2e": max(times.ended for times in made.times) - arrival,
    }
    first = [times.first for times in made.times if times.first]
    if first:
        found["gen_ai.latency.time_to_first_token"] = min(first) - arrival
    spent = [times.spent for times in made.times if times.spent is not None]
    if spent:
        found["gen_ai.latency.time_in_scheduler"] = max(each.scheduling for each in spent)
        if "model" in details:
            found["gen_ai.latency.time_in_model_forward"] = max(each.forward for each in spent)
        if "worker" in details:
            found["gen_ai.latency.time_in_model_execute"] = max(each.execute for each in spent)
    return found


def _phases(times: RequestTimes) -> list[tuple[str, float, float]]:
    """Queue, prefill and decode with their begins and ends; one that did not come is left out."""
    queue, prefill, decode = times.parts()
    started, first = times.arrival + queue, times.arrival + queue + prefill
    found = [("queue", times.arrival, started)]
    if times.started:
        found.append(("prefill", started, first))
    if times.first:
        found.append(("decode", first, first + decode))
    return found
