"""The front end's side of the compile process: started with the first constraint, restarted when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys

import msgspec

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.guided.messages import LENGTH, Job, Judgement, frame
from engine.plugin.request import GuideSpec

#: Most jobs that may wait for their turn.
MAX_WAITING = 128


class TooBusy(EngineError):
    """More constraints wait to be compiled than is sensible."""


class Compiling:
    """Asks the compile process for judgements. Use it from one event loop."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Judgement]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The compile process; None before the first constraint."""
        return self._process.pid if self._process is not None else None

    async def judge(self, spec: GuideSpec) -> Judgement:
        """What becomes of ``spec`` with the backend that it names. Raises EngineError where the process cannot work."""
        if len(self._waiting) >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} constraints wait to be compiled.")
        process = await self._started()
        job = Job(next(self._numbers), spec)
        answer: asyncio.Future[Judgement] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = answer
        try:
            if process.stdin is not None:
                process.stdin.write(frame(job))
            return await answer
        finally:
            self._waiting.pop(job.id, None)

    def close(self) -> None:
        """End the process. May be called twice."""
        if self._reading is not None:
            self._reading.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None
        self._fail("the server ends.")

    async def stop(self) -> None:
        """:meth:`close`, and wait until it has ended."""
        process, reading = self._process, self._reading
        self.close()
        if process is not None:
            await process.wait()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            process = self._process
            if process is None or process.returncode is not None:
                environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
                environment["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork
                process = self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "engine.guided.process",
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
                )  # fmt: skip
                if process.stdin is not None:
                    process.stdin.write(frame(self._config))
                self._reading = asyncio.create_task(self._read(process))
            return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        source = process.stdout
        if source is None:
            return
        decoder = msgspec.msgpack.Decoder(Judgement)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = LENGTH.unpack(await source.readexactly(LENGTH.size))
                judgement = decoder.decode(await source.readexactly(length))
                waiting = self._waiting.get(judgement.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(judgement)
        status = await process.wait()
        self._fail(f"the process that compiles constraints ended with status {status}.")

    def _fail(self, cause: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(EngineError(cause))
