"""The front end's side of the engine: starts it, sends requests, hands out their outputs, aborts what nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from engine import errors
from engine.config import EngineConfig
from engine.errors import EngineError, WorkerDied
from engine.messages import Abort, Add, Call, Failed, FromEngine, Output, Outputs, Progress, Ready, Returned, Stats, Stop, ToEngine
from engine.plugin.request import Request

#: The frame of :mod:`engine.plugin.wire`: length in bytes as unsigned 32-bit little-endian, then that many bytes of msgpack.
_LENGTH = struct.Struct("<I")
_STOP_SECONDS = 15.0
#: For an engine that still loads: it listens to nobody, and nothing of it is worth waiting for.
_LOADING_STOP_SECONDS = 1.0


class EngineClient:
    """One engine process (or thread) and the requests that it serves. Use it from one event loop.

    ``ready`` is set after :meth:`start`; ``stats`` is the engine's latest state; ``dead`` is why it no longer serves.
    """

    def __init__(self, config: EngineConfig, progress: Callable[[Progress], None] | None = None) -> None:
        self._config = config
        self._progress = progress
        self._encoder = msgspec.msgpack.Encoder()
        self._queues: dict[str, asyncio.Queue[Output | EngineError]] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._thread: threading.Thread | None = None
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._started: asyncio.Future[Ready] | None = None
        self._stopping = False
        #: Set when the engine runs and has its configuration; it is not ready yet.
        self.launched = asyncio.Event()
        self.ready: Ready | None = None
        self.stats = Stats()
        self.dead: EngineError | None = None

    @property
    def pid(self) -> int | None:
        """The engine process; None when it runs as a thread."""
        return self._process.pid if self._process else None

    async def start(self) -> Ready:
        """Start the engine and wait until it can serve; raises the engine's own error where it cannot."""
        self._started = asyncio.get_running_loop().create_future()
        if self._config.server.frontend_multiprocessing:
            reader, self._writer = await self._spawn()
        else:
            reader, self._writer = await self._embed()
        self._write_frame(msgspec.msgpack.encode(self._config))
        self.launched.set()
        self._reading = asyncio.create_task(self._read(reader))
        try:
            self.ready = await self._started
        except BaseException:
            await self.stop()
            raise
        return self.ready

    async def generate(self, request: Request) -> AsyncIterator[Output]:
        """The outputs of a request until its finish reason. Leaving the iterator early aborts the request.

        Raises the engine's error when it dies meanwhile.
        """
        self._check_alive()
        queue: asyncio.Queue[Output | EngineError] = asyncio.Queue()
        self._queues[request.id] = queue
        finished = False
        try:
            self._send(Add(request))
            while not finished:
                output = await queue.get()
                if isinstance(output, EngineError):
                    finished = True
                    raise output
                finished = output.finish_reason is not None
                yield output
        finally:
            self._queues.pop(request.id, None)
            if not finished and self.dead is None:
                self._send(Abort([request.id]))

    async def call(self, method: str, **arguments: Any) -> Any:
        """A named operation of the engine (``stats``, ``reset_prefix_cache`` …); raises ``EngineError`` for an unknown one."""
        self._check_alive()
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._send(Call(number, method, arguments))
            return await answer
        finally:
            self._calls.pop(number, None)

    async def stop(self) -> None:
        """End the engine; running requests end with an error. May be called twice."""
        self._stopping = True
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._send(Stop())
                self._writer.write_eof()
        if self._process is not None and self._process.returncode is None:
            try:
                patience = _STOP_SECONDS if self.ready is not None else _LOADING_STOP_SECONDS
                await asyncio.wait_for(self._process.wait(), patience)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._thread is not None:
            # A thread that still computes while the interpreter ends takes the process with it.
            end = time.monotonic() + _STOP_SECONDS
            while self._thread.is_alive() and time.monotonic() < end:
                await asyncio.sleep(0.01)
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        self._fail(self.dead or WorkerDied("the engine was stopped."))

    async def _spawn(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start the engine process and wait for its connection; the socket is private to this user."""
        directory = tempfile.mkdtemp(prefix="engine-")
        path = os.path.join(directory, "engine.sock")
        connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result((reader, writer))

        server = await asyncio.start_unix_server(accept, path)
        try:
            os.chmod(path, 0o600)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "engine.process", path, env=_environment(self._config)
            )
            ended = asyncio.create_task(self._process.wait())
            waiting: set[asyncio.Future[Any]] = {connected, ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not connected.done():
                raise WorkerDied(f"the engine process ended with status {ended.result()} before it connected.")
            ended.cancel()
            return connected.result()
        finally:
            server.close()
            shutil.rmtree(directory, ignore_errors=True)

    async def _embed(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Run the engine in a thread of this process."""
        from engine.process import serve_in_thread

        ours, theirs = socket.socketpair()
        self._thread = serve_in_thread(theirs)
        return await asyncio.open_unix_connection(sock=ours)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.msgpack.Decoder(FromEngine)
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                self._dispatch(decoder.decode(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError):
            await self._report_end()

    def _dispatch(self, message: FromEngine) -> None:
        match message:
            case Outputs():
                self._deliver(message)
            case Returned():
                self._answer(message)
            case Ready():
                if self._started is not None and not self._started.done():
                    self._started.set_result(message)
            case Progress():
                if self._progress is not None:
                    self._progress(message)
            case Failed(name, cause, fix, detail):
                if os.environ.get("ENGINE_TRACEBACK") and detail:
                    sys.stderr.write(detail)
                self._fail(_revive(name, cause, fix))

    def _deliver(self, message: Outputs) -> None:
        self.stats = message.stats or self.stats
        for output in message.outputs:
            if (queue := self._queues.get(output.id)) is not None:
                queue.put_nowait(output)

    def _answer(self, message: Returned) -> None:
        waiting = self._calls.get(message.id)
        if waiting is None or waiting.done():
            return
        if message.error is None:
            waiting.set_result(message.value)
        else:
            waiting.set_exception(EngineError(message.error))

    async def _report_end(self) -> None:
        """The connection ended: say how, unless that was asked for or explained before."""
        status = ""
        if self._process is not None:
            status = f" with status {await self._process.wait()}"
        self._fail(WorkerDied(f"the engine process ended{status}.", fix="restart the server"))

    def _fail(self, error: EngineError) -> None:
        """Remember why the engine no longer serves, and tell everybody who waits."""
        self.dead = self.dead or error
        for queue in self._queues.values():
            queue.put_nowait(self.dead)
        waiting = [*self._calls.values(), *([self._started] if self._started else [])]
        for future in waiting:
            if not future.done():
                future.set_exception(self.dead)

    def _check_alive(self) -> None:
        if self.dead is not None:
            raise self.dead
        if self._writer is None:
            raise EngineError("the engine is not started.", fix="await client.start()")

    def _send(self, message: ToEngine) -> None:
        self._write_frame(self._encoder.encode(message))

    def _write_frame(self, payload: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            return
        self._writer.write(_LENGTH.pack(len(payload)) + payload)


def _environment(config: EngineConfig) -> dict[str, str]:
    """The engine process's environment. Where the model lives in host memory, glibc asks for huge pages for large blocks:
    committing the cache is several times faster, and reading weights too. GLIBC_TUNABLES of the user stay as they are."""
    asked = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if config.device.shared_memory else {}
    return asked | os.environ


def _revive(name: str, cause: str, fix: str | None) -> EngineError:
    """The engine's error as its own class, so that the start ends with that class's exit status."""
    found = getattr(errors, name, EngineError)
    kind = found if isinstance(found, type) and issubclass(found, EngineError) else EngineError
    return kind(cause, fix=fix)
