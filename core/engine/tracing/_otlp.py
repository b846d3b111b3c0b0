"""The OpenTelemetry SDK: spans with given times, sent in batches by a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Child = tuple[str, int, int, Mapping[str, Any]]


class Sender:
    """Sends to ``endpoint`` by ``protocol``. The SDK's own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…,
    OTEL_EXPORTER_OTLP_HEADERS …) hold."""

    def __init__(self, endpoint: str, protocol: str) -> None:
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {"service.name": "engine"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint, protocol)))
        self._tracer = self._provider.get_tracer("engine")
        self._propagator = TraceContextTextMapPropagator()

    def send(
        self, headers: Mapping[str, str], began: int, ended: int, attributes: Mapping[str, Any], children: Sequence[Child],
        error: str | None,
    ) -> None:  # fmt: skip
        """A span ``llm_request`` with its children; moments in nanoseconds since 1970. ``headers``: the trace that it goes on, if any."""
        parent = self._propagator.extract(dict(headers))
        span = self._tracer.start_span("llm_request", parent, SpanKind.SERVER, dict(attributes), start_time=began)
        inside = set_span_in_context(span)
        for name, start, end, about in children:
            self._tracer.start_span(name, inside, attributes=dict(about), start_time=start).end(end)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _exporter(endpoint: str, protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as ByGrpc

        return ByGrpc(endpoint=endpoint, insecure=urlsplit(endpoint).scheme == "http")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as ByHttp

    bare = urlsplit(endpoint).path in ("", "/")
    return ByHttp(endpoint=endpoint.rstrip("/") + "/v1/traces" if bare else endpoint)
