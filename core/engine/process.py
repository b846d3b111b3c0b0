"""The engine process: ``python -m engine.process SOCKET RECORD`` receives a configuration, serves requests, ends with its parent."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable

import msgspec

from engine.config import EngineConfig
from engine.errors import EngineError, MemoryShortage
from engine.footprint import Phases, age, one_arena, rest, settle, unswept
from engine.loop import EngineLoop
from engine.messages import Alive, Failed, FromEngine, Progress, Ready, Stop, ToEngine
from engine.parent import end_with_parent, ignore_ends
from engine.plugin.contracts.executor import CacheBudget, Executor, Worker, WorkerPlan
from engine.plugin.wire import Connection, connect
from engine.record import Record

#: Seconds between two signs of life.
_HEARTBEAT = 1.0
#: An engine that nobody has asked anything for so long is idle.
_IDLE_SECONDS = 2.0


class Link:
    """The engine's end of the connection to the front end: a reader and a writer thread around two queues.

    The end of the connection (the front end is gone) reads as :class:`~engine.messages.Stop`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[FromEngine | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write, name="engine-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)

    def start(self) -> None:
        """Begin to carry messages."""
        self._writer.start()
        self._reader.start()

    def receive(self, wait: bool) -> ToEngine | None:
        """The next message; None when there is none and ``wait`` is False. A long wait gives memory of past steps back."""
        try:
            return self._inbox.get(block=wait, timeout=_IDLE_SECONDS)
        except queue.Empty:
            if not wait:
                return None
        rest()
        return self._inbox.get()

    @property
    def empty(self) -> bool:
        """Whether no message has come that was not taken."""
        return self._inbox.empty()

    def send(self, message: FromEngine) -> None:
        """Queue a message for the front end."""
        self._outbox.put(message)

    def beat(self, busy: Callable[[], float]) -> None:
        """Say every second, from a thread, that the process runs, and how long its present step has."""

        def run() -> None:
            while not self._closed.wait(_HEARTBEAT):
                self.send(Alive(busy()))

        threading.Thread(target=run, name="engine-heartbeat", daemon=True).start()

    def close(self) -> None:
        """Send what is queued, then close."""
        self._closed.set()
        self._outbox.put(None)
        self._writer.join(timeout=5)
        self._connection.close()

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(ToEngine)
        try:
            with contextlib.suppress(OSError, EOFError):
                while True:
                    self._inbox.put(decoder.decode(self._connection.recv_bytes()))
        finally:
            # whatever ended the reading: an engine that hears nobody must not go on
            self._inbox.put(Stop())

    def _write(self) -> None:
        encoder = msgspec.msgpack.Encoder()
        with contextlib.suppress(OSError, EOFError):
            while (message := self._outbox.get()) is not None:
                self._connection.send_bytes(encoder.encode(message))


def start_executor(
    config: EngineConfig, rendezvous: str, progress: Callable[[str, int, int], None], phases: Phases | None = None
) -> Executor:
    """Create the chosen executor and load the model on all its workers."""
    from engine.plugin.host import load
    from engine.plugin.kinds import EXECUTOR

    def start_worker(rank: int) -> Worker:
        with unswept():
            from engine.worker.worker import LocalWorker

        if phases is not None:
            phases.end("imports")
        return LocalWorker(config, rank, rendezvous, progress if rank == 0 else None)

    plan = WorkerPlan(
        world_size=config.parallel.tensor_parallel * config.parallel.pipeline_parallel,
        tensor_parallel=config.parallel.tensor_parallel,
        pipeline_parallel=config.parallel.pipeline_parallel,
        payload=msgspec.msgpack.encode(config),
        argv=[sys.executable, "-m", "engine.worker.remote"],
        rendezvous=rendezvous,
        loading_workers=config.parallel.loading_workers,
        overlap=config.run.overlap,
    )
    executor = load(config.choices["executor"], EXECUTOR, plan=plan, start_worker=start_worker)
    executor.start()
    return executor


def agree_on_pages(config: EngineConfig, budgets: list[CacheBudget]) -> tuple[int, int]:
    """Device and host pages that every worker can hold, never more than the plan granted.

    Raises :class:`~engine.errors.MemoryShortage` where one sequence of the maximum length would not fit.
    """
    pages = min(config.cache.pages, *(budget.pages for budget in budgets))
    host_pages = min(config.cache.host_pages, *(budget.host_pages for budget in budgets))
    needed = -(-config.model.max_model_len // config.cache.block_size)
    if pages < needed:
        raise MemoryShortage(
            f"the KV cache has room for {pages * config.cache.block_size} tokens, fewer than one sequence of "
            f"--max-model-len {config.model.max_model_len}.",
            fix=f"--max-model-len {max(1, pages * config.cache.block_size)}",
        )
    return pages, host_pages


def create_loop(
    config: EngineConfig, executor: Executor, pages: int, host_pages: int, link: Link, record: Record | None = None
) -> EngineLoop:
    """The scheduler and the loop around the executor."""
    from engine.plugin.guarded import GuardedPolicy
    from engine.plugin.host import load
    from engine.plugin.kinds import POLICY, PREEMPTION
    from engine.scheduler import Scheduler

    cache = msgspec.structs.replace(config.cache, pages=pages, host_pages=host_pages)
    scheduler = Scheduler(
        config.scheduler,
        cache,
        GuardedPolicy(config.choices["policy"].name, load(config.choices["policy"], POLICY)),
        load(config.choices["preemption"], PREEMPTION),
        config.model.max_model_len,
        timed=bool(config.observability.details),
    )
    return EngineLoop(scheduler, executor, link.receive, link.send, record.write if record is not None else None)


def prepare(executor: Executor, link: Link) -> None:
    """Record the steps that requests will need, until the first one comes: it and its neighbours shall not wait for that."""
    with contextlib.suppress(LookupError):  # workers of other packages need not know the operation
        while link.empty and any(executor.call("prepare", {})):
            pass


def serve(connection: Connection, record: Record | None = None) -> int:
    """Run an engine over a connection: the first frame is the configuration. Returns the exit status.

    ``record`` is told for whom the engine works.
    """
    # OpenMP threads that spin at barriers make a step a hundred times slower as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    config = msgspec.msgpack.decode(connection.recv_bytes(), type=EngineConfig)
    phases = Phases(age() if config.server.frontend_multiprocessing else 0.0)
    phases.end("process")
    link = Link(connection)
    link.start()
    rendezvous = tempfile.mkdtemp(prefix="engine-workers-")
    executor: Executor | None = None
    try:
        executor = start_executor(config, rendezvous, lambda *done: link.send(Progress(*done)), phases)
        settle()
        phases.end("weights")
        budgets = executor.budgets()
        pages, host_pages = agree_on_pages(config, budgets)
        executor.allocate(pages, host_pages)
        phases.end("cache")
        loop = create_loop(config, executor, pages, host_pages, link, record)
        link.send(
            Ready(
                pages=pages,
                host_pages=host_pages,
                block_size=config.cache.block_size,
                page_bytes=budgets[0].page_bytes,
                weight_bytes=sum(budget.weight_bytes for budget in budgets),
                max_model_len=config.model.max_model_len,
                seconds=phases.seconds,
            )
        )
        link.beat(lambda: loop.busy)
        prepare(executor, link)
        loop.run()
        return 0
    except EngineError as error:
        link.send(Failed(type(error).__name__, str(error), error.fix, traceback.format_exc()))
        return error.status
    except BaseException as error:
        # Reported, then ended: the front end names the cause and fails the requests that were running.
        link.send(Failed("EngineError", f"{type(error).__name__}: {error}", None, traceback.format_exc()))
        raise
    finally:
        if executor is not None:
            executor.shutdown()
        link.close()
        shutil.rmtree(rendezvous, ignore_errors=True)


def main() -> int:
    """Entry of the engine process."""
    import faulthandler

    from engine.plugin import alarm

    one_arena()
    # A crash in native code says where: the operator sees which plugin was at work.
    faulthandler.enable()

    # Ctrl-C and the SIGTERM of a service's stop reach the whole process group; the front end decides when the engine ends.
    ignore_ends()
    end_with_parent()
    alarm.install()
    try:
        return serve(connect(sys.argv[1]), Record(int(sys.argv[2])))
    except EngineError as error:
        print(error.line(), file=sys.stderr)  # noqa: T201 - the process has no other voice left
        return error.status


def serve_in_thread(end: socket.socket) -> threading.Thread:
    """Run the engine in a thread of this process, over one end of a socket pair (``--disable-frontend-multiprocessing``)."""
    thread = threading.Thread(target=serve, args=(Connection(end),), name="engine", daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    sys.exit(main())
