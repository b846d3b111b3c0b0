"""One life of the engine process: started, connected, heard, ended. The client may live through several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from engine import errors
from engine.child import Child
from engine.config import EngineConfig
from engine.death import Death, kernel_kills, own_doing, stopped
from engine.errors import ConfigError, EngineError, WorkerDied
from engine.messages import Failed, FromEngine, Stop, ToEngine
from engine.record import Record

#: The frame of :mod:`engine.plugin.wire`: length in bytes as unsigned 32-bit little-endian, then that many bytes of msgpack.
_LENGTH = struct.Struct("<I")
_STOP_SECONDS = 15.0
#: Bytes that the path of a socket may have.
_SOCKET_PATH = 103
#: For an engine that still loads: it listens to nobody, and nothing of it is worth waiting for.
_LOADING_STOP_SECONDS = 1.0


class Life:
    """A running engine process (or thread) and the connection to it.

    ``receive`` is called with each of its messages, ``ended`` once when the connection ends, whoever ended it.
    ``heard`` is when it last said anything, in monotonic seconds. ``ready`` is set by the client.
    ``death`` is None while it lives.
    """

    def __init__(
        self, config: EngineConfig, receive: Callable[[Life, FromEngine], None], ended: Callable[[Life, Death], None]
    ) -> None:
        self._config = config
        self._receive = receive
        self._ended = ended
        self._encoder = msgspec.msgpack.Encoder()
        self._process: Child | None = None
        self._thread: threading.Thread | None = None
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        #: Whether it was told to end: nothing can be written behind that.
        self._parting = False
        self._cause: EngineError | None = None
        self._record: Record | None = None
        self._kernel_kills = kernel_kills()
        #: Whether it froze by its own doing, and when, where it was killed for being frozen.
        self._froze: tuple[bool, float] | None = None
        self.heard = time.monotonic()
        self.ready = False
        self.death: Death | None = None

    @property
    def pid(self) -> int | None:
        """The engine process; None when it runs as a thread."""
        return self._process.pid if self._process else None

    async def begin(self) -> None:
        """Start it and give it the configuration; it is not ready yet. ``WorkerDied`` where it cannot be started just now."""
        in_process = not self._config.server.frontend_multiprocessing
        try:
            reader, self._writer = await (self._embed() if in_process else self._spawn())
        except OSError as error:
            # No process, socket or memory to be had just now; the next attempt may find some.
            raise WorkerDied(f"the engine process could not be started: {error}.", fix="restart the server") from error
        self._write_frame(msgspec.msgpack.encode(self._config))
        self._reading = asyncio.create_task(self._read(reader))

    def send(self, message: ToEngine) -> None:
        """Queue a message; one for an engine that has ended goes nowhere."""
        self._write_frame(self._encoder.encode(message))

    def kill(self, cause: EngineError, since: float) -> None:
        """End the process, frozen ``since`` then (monotonic seconds), at once; ``ended`` is called with ``cause``."""
        self._cause = self._cause or cause
        if self._process is not None and self._process.returncode is None:
            self._froze = self._froze or (not stopped(self._process.pid), since)
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end, and see to it. May be called twice, at the same time too."""
        if self._writer is not None and not self._parting and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self.send(Stop())
                self._parting = True
                self._writer.write_eof()
        if self._process is not None and self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS if self.ready else _LOADING_STOP_SECONDS)
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
        if self._record is not None:
            self._record.close()

    async def _spawn(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start the engine process and wait for its connection; the socket is private to this user."""
        directory = tempfile.mkdtemp(prefix="engine-")
        path = os.path.join(directory, "engine.sock")
        if len(os.fsencode(path)) > _SOCKET_PATH:
            os.rmdir(directory)
            raise ConfigError(f"TMPDIR {tempfile.gettempdir()} is too long for the path of a socket in it.", fix="TMPDIR=/tmp")
        connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result((reader, writer))

        server = await asyncio.start_unix_server(accept, path)
        self._record = Record.create()
        record = self._record.fd
        try:
            os.chmod(path, 0o600)
            command = [sys.executable, "-m", "engine.process", path, str(record)]
            self._process = Child(command, _environment(self._config), (record,))
            over = asyncio.create_task(self._process.wait())
            waiting: set[asyncio.Future[Any]] = {connected, over}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not connected.done():
                raise WorkerDied(f"the engine process ended with status {over.result()} before it connected.")
            over.cancel()
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
                message = decoder.decode(await reader.readexactly(length))
                self.heard = time.monotonic()
                if isinstance(message, Failed):
                    self._cause = self._cause or _revive(message)
                else:
                    self._receive(self, message)
        except (asyncio.IncompleteReadError, OSError):
            self.death = await self._die()
            self._ended(self, self.death)

    async def _die(self) -> Death:
        """The connection is over: how the process ended."""
        now = time.monotonic()
        code = await self._process.wait() if self._process is not None else 0
        status = f" with {_status(code)}" if self._process is not None else ""
        error = self._cause or WorkerDied(f"the engine process ended{status}.", fix="restart the server")
        own, at = self._froze or (own_doing(code, self._kernel_kills), now)
        return Death(error, own, at, self._record.read() if self._record is not None else frozenset())

    def _write_frame(self, payload: bytes) -> None:
        if self._writer is None or self._parting or self._writer.is_closing():
            return
        self._writer.write(_LENGTH.pack(len(payload)) + payload)


def _status(code: int) -> str:
    """An exit status in words: a signal by its name."""
    try:
        return f"status {code} ({signal.Signals(-code).name})" if code < 0 else f"status {code}"
    except ValueError:
        return f"status {code}"


def _environment(config: EngineConfig) -> dict[str, str]:
    """The engine process's environment. Where the model lives in host memory, glibc asks for huge pages for large blocks:
    committing the cache is several times faster, and reading weights too. GLIBC_TUNABLES of the user stay as they are."""
    asked = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if config.device.shared_memory else {}
    return asked | os.environ


def _revive(message: Failed) -> EngineError:
    """The engine's error as its own class, so that the start ends with that class's exit status."""
    if os.environ.get("ENGINE_TRACEBACK") and message.detail:
        sys.stderr.write(message.detail)
    found = getattr(errors, message.error, EngineError)
    kind = found if isinstance(found, type) and issubclass(found, EngineError) else EngineError
    return kind(message.cause, fix=message.fix)
