"""The FastAPI application: routes, error answers and the layers around them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.config import EngineConfig, ServerConfig
from engine.errors import ConfigError, EngineError
from engine.metrics import Metrics, Observer
from engine.metrics import log as stats_log
from engine.plugin.contracts.scheduling import SchedulingPolicy
from engine.plugin.contracts.text import Tokenizer, TokenizerPool
from engine.plugin.faults import Faults
from engine.server import health, page, tokenize
from engine.server.auth import ApiKeys, route_path
from engine.server.errors import engine_response, error_response
from engine.server.identity import RequestIdentity
from engine.server.messages.route import count_tokens, message
from engine.server.openai import models
from engine.server.openai.chat import chat
from engine.server.openai.completions import complete
from engine.server.openapi import describe_bodies
from engine.server.parsing import Parsers
from engine.server.responses.route import find_response, respond
from engine.server.service import Client, Service
from engine.server.sse import Disconnected
from engine.server.tracing import TraceRequests
from engine.tracing import Traces

Endpoint = Callable[[Service, Request], Coroutine[Any, Any, Response]]
#: What generates.
GENERATING: dict[str, Endpoint] = {
    "/v1/completions": complete, "/v1/chat/completions": chat, "/v1/responses": respond, "/v1/messages": message,
}  # fmt: skip
STATS_SECONDS = 10.0
#: The status by which logs tell that nobody waited for the answer; it reaches no client.
CLIENT_GONE = 499


def create_app(
    config: EngineConfig,
    client: Client,
    tokenizer: Tokenizer | None,
    *,
    policy: SchedulingPolicy | None = None,
    pool: TokenizerPool | None = None,
    endpoints: frozenset[str] = frozenset({"completions", "chat"}),
    parsers: Parsers | None = None,
    observers: Sequence[Observer] = (),
    traces: Traces | None = None,
    add_routes: Callable[[FastAPI], None] | None = None,
    faults: Faults | None = None,
) -> FastAPI:
    """The application for a started engine. ``add_routes``: the extensions' routes, which stand behind the API key like ours."""
    server = config.server
    metrics = Metrics(config, client, observers)
    service = Service(
        config, client, tokenizer, policy=policy, pool=pool, metrics=metrics, endpoints=endpoints, parsers=parsers, faults=faults,
        traces=traces,
    )
    docs: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None} if server.disable_fastapi_docs else {}
    app = FastAPI(
        title="engine",
        version=health.engine_version(),
        lifespan=_lifespan(service),
        redirect_slashes=False,
        **docs,
    )
    app.state.service = service
    app.state.extension_options = server.extension_options
    describe_bodies(app)
    _add_routes(app, service)
    if add_routes is not None:
        add_routes(app)
    app.add_exception_handler(EngineError, _answer_engine_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Disconnected, _answer_nobody)
    _add_layers(app, server, traces)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    for path, endpoint in GENERATING.items():
        app.add_api_route(path, _bound(service, endpoint, tracked=service.config.server.enable_server_load_tracking), methods=["POST"])
    posted: list[tuple[str, Endpoint]] = [("/tokenize", tokenize.tokenize), ("/detokenize", tokenize.detokenize)]
    posted += [("/v1/messages/count_tokens", count_tokens), ("/v1/responses/{name}/cancel", find_response)]
    for path, endpoint in posted:
        app.add_api_route(path, _bound(service, endpoint), methods=["POST"])
    got: list[tuple[str, Endpoint]] = [
        ("/v1/models", models.list_models), ("/v1/models/{name:path}", models.show_model), ("/tokenizer_info", tokenize.tokenizer_info),
        ("/health", health.health), ("/health/ready", health.health), ("/health/live", health.live), ("/health/plugins", health.plugins),
        ("/version", health.show_version), ("/load", health.load), ("/metrics", health.metrics),
        ("/v1/responses/{name}", find_response), ("/ui", page.page), ("/ui/", page.slash), ("/ui/plan", page.plan),
        ("/ui/{name}", page.page),
    ]  # fmt: skip
    for path, endpoint in got:
        bound = _bound(service, endpoint)
        app.add_api_route(path, bound, methods=["GET"])
        app.add_api_route(path, bound, methods=["HEAD"], include_in_schema=False)  # the server sends the head alone
    app.add_api_route("/ping", _bound(service, health.health), methods=["GET", "HEAD", "POST"], include_in_schema=False)


def _bound(service: Service, endpoint: Endpoint, *, tracked: bool = False) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def serve(request: Request) -> Response:
        return await endpoint(service, request)

    async def serve_counted(request: Request) -> Response:
        service.load += 1
        try:
            response = await endpoint(service, request)
        except BaseException:
            service.load -= 1
            raise
        return _counted(service, response)

    bound = serve_counted if tracked else serve
    bound.__name__ = endpoint.__name__
    bound.__doc__ = endpoint.__doc__
    # FastAPI reads annotations from the function's own globals.
    bound.__annotations__ = {"request": Request, "return": Response}
    return bound


def _counted(service: Service, response: Response) -> Response:
    """The request stays counted until its answer is sent."""
    send_answer = response.__call__

    class Counted(Response):
        async def __call__(self, *arguments: Any) -> None:
            try:
                await send_answer(*arguments)
            finally:
                service.load -= 1

    counted = Counted(status_code=response.status_code)
    counted.raw_headers = response.raw_headers
    return counted


def _lifespan(service: Service) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.guides.warm(lambda: service.idle))]
        if service.metrics.enabled:
            tasks.append(asyncio.create_task(_log_stats(service)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            service.close()
            if service.traces is not None:
                await service.traces.close()

    return lifespan


async def _log_stats(service: Service) -> None:
    while True:
        await asyncio.sleep(STATS_SECONDS)
        line = service.metrics.line()
        if line is not None:
            stats_log.info(line)


def _add_layers(app: FastAPI, server: ServerConfig, traces: Traces | None) -> None:
    """Innermost first: the operator's middleware, the API key, the trace, the request's identity, CORS."""
    for path in server.middleware:
        _add_middleware(app, path)
    if server.api_keys:
        app.add_middleware(ApiKeys, keys=server.api_keys)
    if traces is not None:
        app.add_middleware(TraceRequests, traces=traces, paths=frozenset(GENERATING))
    app.add_middleware(RequestIdentity)
    if server.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.allowed_origins),
            allow_credentials=server.allow_credentials,
            allow_methods=list(server.allowed_methods),
            allow_headers=list(server.allowed_headers),
        )


def _add_middleware(app: FastAPI, path: str) -> None:
    module, _, name = path.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--middleware: {path!r} cannot be imported: {error}", fix="an import path: package.module.Name") from error
    if inspect.isclass(found):
        app.add_middleware(found)  # type: ignore[arg-type]
    elif inspect.iscoroutinefunction(found):
        app.middleware("http")(found)
    else:
        raise ConfigError(f"--middleware: {path!r} is neither a class nor a coroutine function.", fix="an ASGI middleware class")


async def _answer_engine_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, EngineError):
        raise error
    return engine_response(error, route_path(request.scope))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path[:200]
    there = " The page is at /ui, the API below /v1." if path == "/" else ""
    texts = {404: f"There is nothing at {path}.{there}", 405: f"{request.method[:20]} is not allowed at this path."}
    headers = {name: "GET, HEAD" if value == "GET" else value for name, value in (error.headers or {}).items()}
    cause = texts.get(error.status_code, str(error.detail))
    return error_response(cause, error.status_code, headers=headers, path=route_path(request.scope))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
