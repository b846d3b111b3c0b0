"""A worker in a process of its own: ``python -m engine.worker.remote RANK`` serves one rank over its executor's socket.

The process ends with its executor: a thread reads the socket, and its end ends the process even while a collective
waits for peers that are gone. Another thread says every second that the process lives, so that a stopped worker is
noticed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import traceback
from typing import assert_never

import msgspec

from engine.errors import EngineError
from engine.footprint import one_arena
from engine.parent import end_with_parent, ignore_ends
from engine.plugin.contracts.executor import Worker
from engine.plugin.wire import Connection, connect
from engine.plugin.workers import (
    HEARTBEAT,
    SOCKET_VARIABLE,
    Alive,
    Allocate,
    Budget,
    Close,
    Done,
    Failed,
    Hello,
    Invoke,
    Load,
    Run,
    Setup,
    ToWorker,
)


class RemoteWorker:
    """Answers an executor's requests with a worker that the first of them sets up."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._worker: Worker | None = None

    def answer(self, request: ToWorker) -> Done:
        """Do what the request asks; raises whatever the worker raises."""
        match request:
            case Setup(payload, rendezvous):
                self._worker = create(payload, self._rank, rendezvous)
            case Load():
                self._ready().load()
            case Budget():
                return Done(budget=self._ready().budget())
            case Allocate(pages, host_pages):
                self._ready().allocate(pages, host_pages)
            case Run(step):
                self._ready().run(step)
            case Invoke(method, arguments):
                return Done(self._ready().call(method, arguments))
            case Close():
                if self._worker is not None:
                    self._worker.close()
            case _:
                assert_never(request)
        return Done()

    def _ready(self) -> Worker:
        if self._worker is None:
            raise ValueError("a worker's first request is Setup")
        return self._worker


def create(payload: bytes, rank: int, rendezvous: str) -> Worker:
    """The worker of an encoded engine configuration."""
    from engine.config import EngineConfig
    from engine.worker.worker import LocalWorker

    return LocalWorker(msgspec.msgpack.decode(payload, type=EngineConfig), rank, rendezvous)


def serve(connection: Connection, rank: int) -> None:
    """Answer requests until Close; the end of the connection ends the process."""
    requests: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    connection.send(Hello(rank, os.getpid()))
    threading.Thread(target=_read, args=(connection, requests), name="worker-reader", daemon=True).start()
    threading.Thread(target=_beat, args=(connection,), name="worker-heartbeat", daemon=True).start()
    worker = RemoteWorker(rank)
    request: ToWorker | None = None
    while not isinstance(request, Close):
        request = requests.get()
        connection.send_bytes(_reply(worker, request))


def _reply(worker: RemoteWorker, request: ToWorker) -> bytes:
    """The encoded answer, or the encoded failure."""
    try:
        return msgspec.msgpack.encode(worker.answer(request))
    except Exception as error:  # noqa: BLE001 - the executor decides what a failure means
        fix = error.fix if isinstance(error, EngineError) else None
        return msgspec.msgpack.encode(Failed(type(error).__name__, str(error), fix, traceback.format_exc()))


def _read(connection: Connection, requests: queue.SimpleQueue[ToWorker]) -> None:
    decoder = msgspec.msgpack.Decoder(ToWorker)
    status = 1
    try:
        while True:
            requests.put(decoder.decode(connection.recv_bytes()))
    except (OSError, EOFError):
        status = 0
    except msgspec.DecodeError:
        traceback.print_exc()
    finally:
        # The main thread may be inside a collective that nothing but the end of the process can leave.
        os._exit(status)


def _beat(connection: Connection) -> None:
    pause = threading.Event()
    with contextlib.suppress(OSError):
        while not pause.wait(HEARTBEAT):
            connection.send(Alive())


def main() -> int:
    """Entry of a worker process."""
    # Ctrl-C and the SIGTERM of a service's stop reach the whole process group; the executor decides when workers end.
    ignore_ends()
    end_with_parent()
    one_arena()
    serve(connect(os.environ[SOCKET_VARIABLE]), int(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
