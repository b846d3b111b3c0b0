"""Starting and ending a server: the port first, then the engine, then HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig, ServerConfig
from engine.errors import EngineError, PortError
from engine.footprint import age, one_arena, settle
from engine.plugin import alarm

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from engine.client import EngineClient
    from engine.plugin.contracts.scheduling import SchedulingPolicy
    from engine.plugin.extensions import Extensions
    from engine.plugin.host import PluginHost
    from engine.server.door import Door

BACKLOG = 2048
log = logging.getLogger("engine.server")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises PortError (status 6)."""
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except (OSError, UnicodeError) as error:
        raise PortError(f"The host {host!r} is no address of this machine: {error}.", fix="--host 127.0.0.1") from error
    # Named in full: asyncio turns Nagle's delay off only on sockets that say they are TCP.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
        # Two servers can both bind one address with SO_REUSEADDR; only one can listen.
        bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        hint = f"another --port; `ss -ltnp 'sport = :{port}'` shows who has this one"
        if isinstance(error, PermissionError):
            hint = "--port 8000 (ports below 1024 need privileges)"
        raise PortError(f"Port {port} on {host or 'all interfaces'} cannot be opened: {error}.", fix=hint) from error
    bound.setblocking(False)
    return bound


def run(config: EngineConfig) -> int:
    """Serve until a signal; the exit status. Errors of the start are raised as EngineError."""
    one_arena()
    listening = bind(config.server.host, config.server.port)
    alarm.install()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(config, listening))
    finally:
        listening.close()


async def _serve(config: EngineConfig, listening: socket.socket) -> int:
    from engine.client import EngineClient
    from engine.server.loading import answering_not_ready

    ending = _Ending()
    with ending.caught():
        client = EngineClient(config)
        try:
            async with answering_not_ready(listening):
                parts = _Parts()
                started = await ending.unless(_start(config, client, parts))
            if started and client.ready is not None:
                app, extensions = parts.app, parts.extensions
                await _report(config, client)
                extensions.call("engine_started", info=config.plan)
                await serve(app, config.server, listening, ending)
                extensions.call("engine_stopping")
        finally:
            await client.stop()
    return ending.status


class _Parts:
    """What the front end prepares while the engine starts."""

    app: FastAPI
    extensions: Extensions


async def _start(config: EngineConfig, client: EngineClient, parts: _Parts) -> None:
    """The engine starts while the front end prepares itself; the failure of either ends both."""
    starting = asyncio.ensure_future(client.start())
    try:
        # Not before the engine has its configuration: a thread that parses a tokenizer holds this one up.
        launched = asyncio.ensure_future(client.launched.wait())
        await asyncio.wait((starting, launched), return_when=asyncio.FIRST_COMPLETED)
        if launched.done():
            await asyncio.to_thread(_prepare, config, client, parts)
        launched.cancel()
        await starting
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


async def _report(config: EngineConfig, client: EngineClient) -> None:
    """Say what was started, with the device's description of its kernels where its worker gives one."""
    from engine.server.start_report import start_lines

    try:
        kernels = (await client.call("describe"))[0]
    except EngineError:
        kernels = {}
    if client.ready is not None:
        for line in start_lines(config, client.ready, kernels, age()):
            log.info(line)


def _prepare(config: EngineConfig, client: EngineClient, parts: _Parts) -> None:
    """The tokenizer, the plugins of the front end, the application; the modules that serving imports."""
    import uvicorn  # noqa: F401

    from engine.plugin.extensions import Extensions
    from engine.plugin.faults import Faults
    from engine.plugin.host import PluginHost
    from engine.render.pool import open_tokenizer
    from engine.server import doorstep, start_report  # noqa: F401
    from engine.server.app import create_app
    from engine.server.parsing import make_parsers
    from engine.server.plugin_faults import guard_route
    from engine.tracing import Traces

    host = PluginHost()
    faults = Faults()
    tokenizer, pool = open_tokenizer(config, host, faults)
    policy, endpoints = _plugins(config, host)
    parsers = make_parsers(config, host, tokenizer, faults)
    extensions = parts.extensions = Extensions(host, config.server.extensions, faults)
    parts.app = create_app(
        config,
        client,
        tokenizer,
        policy=policy,
        pool=pool,
        endpoints=endpoints,
        parsers=parsers,
        observers=[extensions.request_finished],
        traces=Traces.of(config),
        add_routes=lambda app: extensions.add_routes(app, client, guard_route),
        faults=faults,
    )
    settle()


def _plugins(config: EngineConfig, host: PluginHost) -> tuple[SchedulingPolicy, frozenset[str]]:
    from engine.plugin import kinds

    policy = host.create(kinds.POLICY, config.choices["policy"]).plugin
    task = host.create(kinds.TASK, config.choices["task"], info=config.model.info).plugin
    return policy, task.endpoints()


async def serve(app: FastAPI, server: ServerConfig, listening: socket.socket, ending: _Ending | None = None) -> None:
    """Serve an application on a bound socket until ``ending`` says so."""
    import uvicorn

    from engine.server.doorstep import protocol

    settings = uvicorn.Config(
        app,
        http=protocol(_door(app, server)),
        ws="none",
        log_level=server.uvicorn_log_level,
        access_log=not server.disable_uvicorn_access_log,
        ssl_keyfile=server.ssl_keyfile,
        ssl_certfile=server.ssl_certfile,
        ssl_ca_certs=server.ssl_ca_certs,
        ssl_cert_reqs=ssl.VerifyMode(server.ssl_cert_reqs),
        root_path=server.root_path,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(server.drain_timeout)),
        backlog=BACKLOG,
    )
    http = _server(settings)
    if ending is not None:
        ending.ends(http)
    watching = _watch_certificates(settings, server)
    address = listening.getsockname()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    log.info("Serving on http%s://%s:%s", "s" if server.ssl_certfile else "", host, address[1])
    await http.serve(sockets=[listening])
    if watching is not None:
        watching.cancel()
    if http.force_exit:
        # uvicorn leaves the application's lifespan hanging then; cancelled with the loop, it would complain
        await http.lifespan.shutdown()


def _watch_certificates(settings: uvicorn.Config, server: ServerConfig) -> asyncio.Task[None] | None:
    """With --enable-ssl-refresh: listen with a context that follows the files."""
    if not server.ssl_refresh or server.ssl_certfile is None:
        return None
    from engine.server.certificates import Certificates

    certificates = Certificates(server)
    settings.load()
    settings.ssl = certificates.context
    return asyncio.create_task(certificates.watch())


def _door(app: FastAPI, server: ServerConfig) -> Door | None:
    """Pages of other origins, and the operator's middleware, see refusals only behind their layers."""
    from engine.server.door import Door

    if server.allowed_origins or server.middleware:
        return None
    return Door(app.state.service.admission, server.api_keys)


def _server(settings: uvicorn.Config) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's server, which leaves signals alone: they may come before it exists."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(settings)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Ending:
    """What signals say: the first ends the server when its requests are done, the second at once."""

    def __init__(self) -> None:
        self.status = 0
        self.server: uvicorn.Server | None = None
        self._asked = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Signals come here."""
        loop = asyncio.get_running_loop()
        signals = {signal.SIGTERM: 0, signal.SIGINT: 130}
        for number, status in signals.items():
            loop.add_signal_handler(number, self._end, status)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def ends(self, server: uvicorn.Server) -> None:
        """The server that a signal is to end, also one that came just before."""
        self.server = server
        server.should_exit = self._asked.is_set()

    async def unless(self, work: Any) -> bool:
        """Wait for ``work``; False where a signal came first (the work is cancelled)."""
        working = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait((working, asked), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return not self._asked.is_set()
            return False
        finally:
            for task in (working, asked):
                task.cancel()
            await asyncio.gather(working, asked, return_exceptions=True)

    def _end(self, status: int) -> None:
        if self._asked.is_set() and self.server is not None:
            self.server.force_exit = True
        self._asked.set()
        self.status = status
        if self.server is not None:
            self.server.should_exit = True
