"""How failures of plugins look from outside: extensions' routes, and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import RequestError
from engine.plugin.api import Choice
from engine.plugin.faults import Faults, described
from engine.server.errors import engine_response


class PluginRoute:
    """An extension's route: what it raises is answered with 500 ``plugin_error``, and with 503 while it is switched off."""

    def __init__(self, app: ASGIApp, faults: Faults, choice: Choice) -> None:
        self._app, self._faults, self._choice = app, faults, choice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            self._faults.check(self._choice)
        except RequestError as refused:
            await engine_response(refused)(scope, receive, send)
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            fault = self._faults.record(self._choice, described(error))
            if begun:  # the status is out; breaking off is all that is left
                raise fault from error
            await engine_response(fault)(scope, receive, send)


def guard_route(route: Any, faults: Faults, choice: Choice) -> None:
    """Make a route of a Starlette or FastAPI application a :class:`PluginRoute`."""
    if hasattr(route, "app"):
        route.app = PluginRoute(route.app, faults, choice)


class FaultsCollector(Collector):
    """``engine:plugin_errors_total`` and ``engine:plugin_quarantined``, read when they are asked for."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def collect(self) -> Iterator[Metric]:
        """One row per plugin that has failed."""
        labels = ["plugin", "kind", "distribution"]
        errors = CounterMetricFamily("engine:plugin_errors", "Failures of plugins while requests were served.", labels=labels)
        quarantined = GaugeMetricFamily("engine:plugin_quarantined", "1 while the plugin is switched off.", labels=labels)
        for row in self._faults.standings():
            values = [row["name"], row["kind"], row["distribution"]]
            errors.add_metric(values, row["failures"])
            quarantined.add_metric(values, float(row["quarantined_seconds"] > 0))
        yield errors
        yield quarantined
