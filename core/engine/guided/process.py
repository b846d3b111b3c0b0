"""The compile process: loads the backends once and compiles each constraint in a fork that is killed when it passes its budget."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec

from engine.config import EngineConfig
from engine.errors import EngineError, MissingDependency
from engine.footprint import settle
from engine.guided.backends import Backends
from engine.guided.messages import LENGTH, Job, Judgement, Verdict, frame
from engine.guided.trial import judge
from engine.parent import end_with_parent, ignore_ends

#: Processor seconds and bytes that one constraint may take, beyond what the process has already.
SECONDS = 1.2
NBYTES = 512 * 2**20
#: On a busy machine a fork gets less of a processor, and somebody waits for the answer: after ``PATIENCE`` seconds of the clock the limit
#: is ``BUSY_SECONDS`` of the processor, and what had not even those by ``LAST`` has to end.
PATIENCE, BUSY_SECONDS, LAST = 1.7, 0.3, 6.0
#: Forks at a time.
PARALLEL = 2
#: Seconds after which a fork has to leave the processor to others.
POLITE_AFTER = 0.15


@dataclass
class Fork:
    """A running job: its process, the pipe that it answers through, and what came so far."""

    job: Job
    pid: int
    began: float
    answer: bytearray = field(default_factory=bytearray)
    polite: bool = False
    late: Verdict | None = None
    used: float = 0.0


class CompileProcess:
    """Reads jobs from one file descriptor, answers on another; ends when the first is closed. One thread."""

    def __init__(self, backends: Backends, source: int, sink: int) -> None:
        self._backends = backends
        self._source, self._sink = source, sink
        self._inbox = bytearray()
        self._waiting: list[Job] = []
        self._forks: dict[int, Fork] = {}
        self._loaded: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the front end is gone."""
        while True:
            for key, _ in self._selector.select(0.02 if self._forks else None):
                if key.fd != self._source:
                    self._hear(key.fd)
                elif not self._read():
                    self._kill_all()
                    return
            self._watch()
            while self._waiting and len(self._forks) < PARALLEL:
                self._start(self._waiting.pop(0))

    def _read(self) -> bool:
        data = os.read(self._source, 1 << 20)
        self._inbox += data
        while len(self._inbox) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._inbox)
            if len(self._inbox) < LENGTH.size + length:
                break
            self._waiting.append(msgspec.msgpack.decode(self._inbox[LENGTH.size : LENGTH.size + length], type=Job))
            del self._inbox[: LENGTH.size + length]
        return bool(data)

    def _start(self, job: Job) -> None:
        try:
            self._load(job.spec.backend or "")
        except MissingDependency as error:
            self._answer(Judgement(job.id, Verdict.MISSING, error.line()))
            return
        except EngineError as error:
            self._answer(Judgement(job.id, Verdict.BROKEN, error.line()))
            return
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._child(job, writing)
        os.close(writing)
        self._forks[reading] = Fork(job, pid, time.monotonic())
        self._selector.register(reading, selectors.EVENT_READ)

    def _load(self, backend: str) -> None:
        """Make what every fork uses; what the making leaves in the allocator is given back, and forks share the rest for good."""
        if backend in self._loaded:
            return
        self._backends.compiler(backend)
        _ = self._backends.blanks
        settle()
        self._loaded.add(backend)

    def _child(self, job: Job, writing: int) -> NoReturn:
        """In the fork: compile, answer, end. Whatever goes wrong must not come back into the parent's code."""
        status = 1
        try:
            _limit()
            backends = self._backends
            compiler = backends.compiler(job.spec.backend or "")
            judgement = judge(job, compiler, backends.width, backends.end, SECONDS, backends.blanks)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(msgspec.msgpack.encode(judgement))
            status = 0
        except MemoryError:
            status = 3
        except BaseException as error:  # noqa: BLE001 - the parent reports that the fork failed
            sys.stderr.write(f"guided decoding: compiling failed: {type(error).__name__}: {error}\n")
        finally:
            os._exit(status)

    def _hear(self, fd: int) -> None:
        fork = self._forks[fd]
        data = os.read(fd, 1 << 16)
        fork.answer += data
        if data:
            return
        self._selector.unregister(fd)
        os.close(fd)
        del self._forks[fd]
        judgement = _heard(fork)
        if judgement is not None:
            self._answer(judgement)  # before the fork has given its memory back, which takes a while
        _, status = os.waitpid(fork.pid, 0)
        if judgement is None:
            self._answer(_verdict(fork, status))

    def _watch(self) -> None:
        now = time.monotonic()
        for fork in self._forks.values():
            if fork.late is not None:
                continue
            fork.used = cpu_seconds(fork.pid)
            fork.late = late(now - fork.began, fork.used)
            if fork.late is not None:
                os.kill(fork.pid, signal.SIGKILL)
            elif now - fork.began > POLITE_AFTER and not fork.polite:
                fork.polite = True
                os.setpriority(os.PRIO_PROCESS, fork.pid, 10)

    def _kill_all(self) -> None:
        for fork in self._forks.values():
            os.kill(fork.pid, signal.SIGKILL)
            os.waitpid(fork.pid, 0)

    def _answer(self, judgement: Judgement) -> None:
        data = memoryview(frame(judgement))
        while data:
            data = data[os.write(self._sink, data) :]


def late(passed: float, used: float) -> Verdict | None:
    """Why a fork has to end that began so many seconds ago and used so many of a processor; None: it need not."""
    if used > SECONDS or (passed > PATIENCE and used > BUSY_SECONDS):
        return Verdict.EXPENSIVE
    return Verdict.BUSY if passed > LAST else None


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a child: its clock, by the id that Linux computes from the process."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0  # it has just ended


def _limit() -> None:
    """Bound the fork itself, should the parent not get to it: address space, processor seconds, no core file."""
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + NBYTES, used + NBYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS) + 2, int(SECONDS) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _heard(fork: Fork) -> Judgement | None:
    """The whole answer, if it came before the fork ended."""
    try:
        return msgspec.msgpack.decode(fork.answer, type=Judgement)
    except msgspec.DecodeError:
        return None


def _verdict(fork: Fork, status: int) -> Judgement:
    """Why there is no answer."""
    if fork.late is Verdict.BUSY:
        return Judgement(fork.job.id, Verdict.BUSY, f"the machine is too busy to compile it within {LAST:g} s")
    if fork.late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        passing = fork.late is not None and fork.used <= SECONDS
        limit = f"{BUSY_SECONDS:g} s of a busy processor" if passing else f"{SECONDS:g} s"
        return Judgement(fork.job.id, Verdict.EXPENSIVE, f"it takes longer than {limit} to compile", passing=passing)
    memory = os.WIFSIGNALED(status) or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3)
    if memory:
        cause = f"compiling it needs more than {NBYTES >> 20} MiB of memory, or more stack than there is"
        return Judgement(fork.job.id, Verdict.EXPENSIVE, cause)
    return Judgement(fork.job.id, Verdict.BROKEN, "the backend failed on it")


def main() -> int:
    """Entry: the configuration comes first, then jobs."""
    ignore_ends()
    end_with_parent()
    sink = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not come between the answers
    (length,) = LENGTH.unpack(_exactly(0, LENGTH.size))
    config = msgspec.msgpack.decode(_exactly(0, length), type=EngineConfig)
    CompileProcess(Backends(config, alone=True), 0, sink).run()
    return 0


def _exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


if __name__ == "__main__":
    sys.exit(main())
