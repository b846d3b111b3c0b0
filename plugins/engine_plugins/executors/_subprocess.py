"""One rank in a process of its own: the process, its connection and the thread that watches both."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

import msgspec

from engine import errors
from engine.errors import EngineError, WorkerDied
from engine.plugin.wire import Connection
from engine.plugin.workers import Done, Failed, FromWorker, ToWorker
from engine_plugins.executors._pending import Pending

#: Seconds without a sign of life after which a worker counts as dead. It gives one every second, even while it
#: computes.
SILENCE = 30.0


class Subprocess:
    """Sends requests to a rank and pairs its answers with them, in order. Its end, silence or failed step loses
    everything pending."""

    def __init__(self, rank: int, process: subprocess.Popen[bytes], connection: Connection, pending: Pending) -> None:
        self.rank = rank
        self.process = process
        self._connection = connection
        self._pending = pending
        self._asked: deque[tuple[Future[Any], bool]] = deque()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name=f"worker-{rank}-watch", daemon=True)
        self._thread.start()

    def ask(self, request: ToWorker | bytes, *, step: bool = False) -> Future[Any]:
        """Send a request (or an encoded one); the future gives the answer's :class:`Done`. ``step``: failing it is
        fatal."""
        data = request if isinstance(request, bytes) else msgspec.msgpack.encode(request)
        future = self._pending.ask()
        with self._sending:
            self._asked.append((future, step))
            try:
                self._connection.send_bytes(data)
            except OSError:
                self._pending.lose(WorkerDied(self._obituary("closed its connection")))
        return future

    def end(self, seconds: float) -> None:
        """Wait for the process to end, kill it where it does not, and collect it."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._connection.close()
        self._thread.join()

    def _watch(self) -> None:
        decoder = msgspec.msgpack.Decoder(FromWorker)
        try:
            while True:
                self._handle(decoder.decode(self._connection.recv_bytes(SILENCE)))
        except TimeoutError:
            self._pending.lose(WorkerDied(self._obituary(f"gave no sign of life for {SILENCE:g} s")))
            # A stopped process would hold its peers in their collective for ever.
            self.process.kill()
        except (OSError, EOFError, msgspec.DecodeError):
            self._pending.lose(WorkerDied(self._obituary("closed its connection")))

    def _handle(self, message: FromWorker) -> None:
        match message:
            case Done():
                future, _ = self._asked.popleft()
                self._pending.answer(future, message)
            case Failed():
                future, fatal = self._asked.popleft()
                if fatal:
                    self._pending.lose(WorkerDied(f"Worker {self.rank} failed: {message.error}: {message.cause}"))
                else:
                    self._pending.fail(future, rebuild(message, self.rank))

    def _obituary(self, what: str) -> str:
        """What is known of the end of the process."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(0.5)
            what = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"Worker {self.rank} (pid {self.process.pid}) {what}."


def rebuild(message: Failed, rank: int) -> Exception:
    """The worker's error as this process raises it."""
    kind = getattr(errors, message.error, None)
    if isinstance(kind, type) and issubclass(kind, EngineError):
        return kind(message.cause, fix=message.fix)
    if message.error == "LookupError":
        return LookupError(message.cause)
    return EngineError(f"Worker {rank} failed: {message.error}: {message.cause}\n{message.detail}")
