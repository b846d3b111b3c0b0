"""Traces of requests for an OpenTelemetry collector; without --otlp-traces-endpoint nothing of it runs."""

from __future__ import annotations

from engine.tracing.request import Generated, Meter, Piece, RequestTrace, current, piece, traced
from engine.tracing.traces import Traces

__all__ = ["Generated", "Meter", "Piece", "RequestTrace", "Traces", "current", "piece", "traced"]
