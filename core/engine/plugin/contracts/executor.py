"""Contracts of running workers: the worker an executor drives, and the executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from engine.plugin.step import Step, StepResult


class CacheBudget(msgspec.Struct, frozen=True):
    """What a worker can offer the scheduler after loading. All sizes in bytes, pages are whole pages over all its layers."""

    pages: int
    host_pages: int
    page_bytes: int
    weight_bytes: int
    memory_total: int
    memory_free: int


class WorkerPlan(msgspec.Struct, frozen=True):
    """How many workers and what they are started with. ``payload`` is the encoded engine configuration; opaque to executors.

    ``command(rank)`` is ``[*argv, str(rank)]``: a process that connects to the Unix socket named in its environment variable
    ``ENGINE_WORKER_SOCKET`` and speaks :mod:`engine.plugin.wire`. ``rendezvous`` is a private directory for the process group's file store.
    ``overlap``: whether the engine would like to go on while a step runs (:attr:`Executor.overlaps`).
    """

    world_size: int
    tensor_parallel: int
    pipeline_parallel: int
    payload: bytes
    argv: list[str]
    rendezvous: str
    loading_workers: int | None = None
    overlap: bool = False


class Worker(ABC):
    """One rank: device, model shard, KV pages. Methods are called in this order, on one thread; ``run`` repeatedly."""

    @abstractmethod
    def load(self) -> None:
        """Open the device, join the process group, build the model and read its weights."""

    @abstractmethod
    def budget(self) -> CacheBudget:
        """Measure memory: how many pages fit."""

    @abstractmethod
    def allocate(self, pages: int, host_pages: int) -> None:
        """Create the KV cache, then record steps where the device can."""

    @abstractmethod
    def run(self, step: Step) -> StepResult:
        """One step."""

    @abstractmethod
    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """A named operation outside the step loop (adapters, sleep, profiling, saving shards). Unknown names raise ``LookupError``."""

    def close(self) -> None:
        """Leave the process group, free the device. May be called twice."""


#: Builds the worker of a rank inside this process.
StartWorker = Callable[[int], Worker]


class Executor(ABC):
    """Owns the workers. A dead or silent worker surfaces as :class:`engine.errors.WorkerDied`, never as a hang."""

    #: Whether ``submit`` returns while the step runs, takes the next one meanwhile, and every rank knows the tokens that the step before
    #: sampled (``Work.ahead``).
    overlaps: bool = False

    @abstractmethod
    def start(self) -> None:
        """Start every worker and load the model; raises the first worker's own error."""

    @abstractmethod
    def budgets(self) -> list[CacheBudget]:
        """Each rank's budget, in rank order."""

    @abstractmethod
    def allocate(self, pages: int, host_pages: int) -> None:
        """Create the caches on every rank (the same numbers everywhere)."""

    @abstractmethod
    def submit(self, step: Step) -> Future[StepResult]:
        """Start a step; steps complete in order. An executor without overlap may run it before returning."""

    @abstractmethod
    def call(self, method: str, arguments: dict[str, Any]) -> list[Any]:
        """``Worker.call`` on every rank, in rank order."""

    @abstractmethod
    def shutdown(self) -> None:
        """End every worker; leaves no process behind. May be called twice."""
