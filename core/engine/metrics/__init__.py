"""Prometheus metrics of one server, under the names that vLLM dashboards use, and the statistics line."""

from __future__ import annotations

from engine.metrics.registry import Metrics, Observer, StatsSource, log
from engine.metrics.times import RequestTimes

__all__ = ["Metrics", "Observer", "RequestTimes", "StatsSource", "log"]
