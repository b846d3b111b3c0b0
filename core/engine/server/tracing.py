"""Around every request that generates: its trace, from the first byte of the request to the last of the answer."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.server.auth import route_path
from engine.tracing import RequestTrace, Traces, traced

_CARRIED = (b"traceparent", b"tracestate")


class TraceRequests:
    """ASGI middleware inside :class:`engine.server.identity.RequestIdentity`, which names the request."""

    def __init__(self, app: ASGIApp, traces: Traces, paths: frozenset[str]) -> None:
        self._app = app
        self._traces = traces
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then hand its trace on."""
        if scope["type"] != "http" or scope["method"] != "POST" or (path := route_path(scope)) not in self._paths:
            await self._app(scope, receive, send)
            return
        carried = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        trace = RequestTrace(scope["state"]["request_id"], carried, path=path)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
            await send(message)

        try:
            with traced(trace):
                await self._app(scope, receive, sending)
        except BaseException:
            trace.status = trace.status or 500
            raise
        finally:
            self._traces.send(trace, time.monotonic())
