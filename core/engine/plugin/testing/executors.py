"""Suite of executors: one worker that answers from a table instead of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import ModelFileError
from engine.plugin.contracts.executor import CacheBudget, Executor, Worker, WorkerPlan
from engine.plugin.step import SequenceResult, Step, StepResult, Work
from engine.plugin.testing.base import PluginContract

_BUDGET = CacheBudget(pages=11, host_pages=3, page_bytes=64, weight_bytes=1000, memory_total=10_000, memory_free=5_000)


class ScriptedWorker(Worker):
    """Answers each step with the number of its sequence; ``log`` lists what was asked of it."""

    def __init__(self, rank: int, *, refuse: bool = False) -> None:
        self.rank, self.refuse = rank, refuse
        self.log: list[str] = []

    def load(self) -> None:
        self.log.append("load")
        if self.refuse:
            raise ModelFileError("weights.bin is damaged.", fix="download it again")

    def budget(self) -> CacheBudget:
        self.log.append("budget")
        return _BUDGET

    def allocate(self, pages: int, host_pages: int) -> None:
        self.log.append(f"allocate {pages} {host_pages}")

    def run(self, step: Step) -> StepResult:
        if step.index < 0:
            raise RuntimeError("the worker cannot do this step")
        self.log.append(f"run {step.index}")
        return StepResult(index=step.index, results=[SequenceResult(seq=work.seq, token_ids=[work.seq]) for work in step.work])

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        if method != "echo":
            raise LookupError(method)
        return arguments

    def close(self) -> None:
        self.log.append("close")


class ExecutorContract(PluginContract):
    """Drives one scripted worker in this process. Executors that can only start processes override ``executor``."""

    kind_name = "executor"

    @pytest.fixture
    def workers(self) -> list[ScriptedWorker]:
        """The workers that were started."""
        return []

    @pytest.fixture
    def hook_args(self, workers: list[ScriptedWorker], tmp_path: Any) -> dict[str, Any]:
        def start(rank: int) -> Worker:
            workers.append(ScriptedWorker(rank, refuse=getattr(self, "_refuse", False)))
            return workers[-1]

        plan = WorkerPlan(world_size=1, tensor_parallel=1, pipeline_parallel=1, payload=b"", argv=[], rendezvous=str(tmp_path))
        return {"plan": plan, "start_worker": start}

    @pytest.fixture
    def ready(self, create: Callable[[], Executor]) -> Executor:
        """Started, with its caches."""
        executor = create()
        executor.start()
        assert executor.budgets() == [_BUDGET]
        executor.allocate(9, 2)
        return executor

    def test_steps_are_answered_in_order(self, ready: Executor, workers: list[ScriptedWorker]) -> None:
        steps = [Step(index=index, work=[Work(seq=index + 100, start=0, count=1)]) for index in range(20)]
        results = [future.result(timeout=30) for future in [ready.submit(step) for step in steps]]
        assert [(result.index, result.results[0].token_ids) for result in results] == [(step.index, [step.index + 100]) for step in steps]
        runs = [int(line.split()[1]) for line in workers[0].log if line.startswith("run")]
        assert runs == list(range(20))

    def test_the_worker_is_made_ready_once(self, ready: Executor, workers: list[ScriptedWorker]) -> None:
        assert len(workers) == 1
        assert [line for line in workers[0].log if line != "budget"] == ["load", "allocate 9 2"]

    def test_a_failing_step_fails_its_future(self, ready: Executor) -> None:
        future = None
        with pytest.raises(Exception, match="cannot do this step"):
            future = ready.submit(Step(index=-1))
            future.result(timeout=30)

    def test_calls_reach_every_rank(self, ready: Executor) -> None:
        assert ready.call("echo", {"value": [1, "two"]}) == [{"value": [1, "two"]}]
        with pytest.raises(LookupError):
            ready.call("no_such_method", {})

    def test_a_worker_that_cannot_load_ends_the_start_with_its_own_error(self, create: Callable[[], Executor]) -> None:
        self._refuse = True
        executor = create()
        with pytest.raises(ModelFileError, match=r"weights\.bin is damaged"):
            executor.start()

    def test_shutdown_closes_the_worker_and_leaves_no_process(self, ready: Executor, workers: list[ScriptedWorker]) -> None:
        before = _children()
        ready.shutdown()
        ready.shutdown()
        assert workers[0].log.count("close") >= 1
        assert _children() <= before

    def test_it_may_be_shut_down_before_it_was_started(self, create: Callable[[], Executor]) -> None:
        create().shutdown()


def _children() -> set[int]:
    import multiprocessing
    import os
    from pathlib import Path

    held = {process.pid for process in multiprocessing.active_children() if process.pid}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            held.add(int(entry.parent.name))
    return held
