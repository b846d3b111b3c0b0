"""Liveness, version, load and metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from engine.server.errors import engine_response
from engine.server.service import Service


async def health(service: Service, request: Request) -> Response:
    """200 while the engine serves; 503 with the reason when it is being started again, or does not serve any more."""
    wrong = service.client.dead or service.client.restarting
    return Response(status_code=200) if wrong is None else engine_response(wrong)


async def live(service: Service, request: Request) -> Response:
    """200 as long as this server is of use: also while the engine is being started again. 503: restart the server."""
    dead = service.client.dead
    return Response(status_code=200) if dead is None else engine_response(dead)


async def plugins(service: Service, request: Request) -> Response:
    """Every plugin that has failed since the start, and which are switched off; 200 whatever they are."""
    return as_json({"plugins": service.faults.standings()})


async def show_version(service: Service, request: Request) -> Response:
    """The version of the engine."""
    return as_json({"version": engine_version()})


async def load(service: Service, request: Request) -> Response:
    """Requests inside generating endpoints (counted with --enable-server-load-tracking)."""
    return as_json({"server_load": service.load})


async def metrics(service: Service, request: Request) -> Response:
    """The Prometheus page."""
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def as_json(value: object) -> Response:
    """A 200 answer."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def engine_version() -> str:
    """The installed version; ``0+source`` for a source tree that is not installed."""
    try:
        return version("engine")
    except PackageNotFoundError:
        return "0+source"
