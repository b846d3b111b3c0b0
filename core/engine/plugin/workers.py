"""What an executor and a worker in a process of its own say to each other, over :mod:`engine.plugin.wire`."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plugin.contracts.executor import CacheBudget
from engine.plugin.step import Step

#: Environment variable with the path of the executor's socket.
SOCKET_VARIABLE = "ENGINE_WORKER_SOCKET"
#: Seconds between two :class:`Alive` of a worker.
HEARTBEAT = 1.0


class Setup(msgspec.Struct, frozen=True, tag=True):
    """Executor → worker, once: the encoded engine configuration and the directory where the ranks meet."""

    payload: bytes
    rendezvous: str


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load the model; answered by :class:`Done`."""


class Budget(msgspec.Struct, frozen=True, tag=True):
    """Measure memory; answered by :class:`Done` with the budget."""


class Allocate(msgspec.Struct, frozen=True, tag=True):
    """Create the caches; answered by :class:`Done`."""

    pages: int
    host_pages: int


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run a step; answered by :class:`Done` without a result (rank 0, in the executor's process, has it)."""

    step: Step


class Invoke(msgspec.Struct, frozen=True, tag=True):
    """A named operation; answered by :class:`Done` with its value."""

    method: str
    arguments: dict[str, Any]


class Close(msgspec.Struct, frozen=True, tag=True):
    """Leave the process group and end; answered by :class:`Done`, after which the process ends."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Worker → executor, first: which rank this is."""

    rank: int
    pid: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """Worker → executor: the answer to a request, in the order of requests."""

    value: Any = None
    budget: CacheBudget | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Worker → executor: a request failed. ``error`` names a class of :mod:`engine.errors` or a built-in exception."""

    error: str
    cause: str
    fix: str | None = None
    detail: str = ""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Worker → executor, every second."""


ToWorker = Setup | Load | Budget | Allocate | Run | Invoke | Close
FromWorker = Hello | Done | Failed | Alive
