"""Workers in processes: the same answers as one worker, errors and deaths that surface, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import EngineConfig
from engine.errors import ModelFileError, WorkerDied
from engine.plugin import Step, WorkerPlan
from engine.worker.worker import LocalWorker
from engine_plugins.executors.mp import MultiprocessExecutor
from engine_plugins.executors.uni import UniExecutor
from tests.core.worker.harness import Driver, greedy, make_checkpoint, make_config

PROMPTS = [[1, 5, 9, 33, 2, 8, 61], [3], list(range(10, 29))]
ROOTS = ["core", "plugins", "plugins_devices"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture
def run_mp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[EngineConfig], MultiprocessExecutor]]:
    """Makes executors and checks at the end that no process of theirs is left."""
    root = Path(__file__).resolve().parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(root / part) for part in ROOTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made: list[MultiprocessExecutor] = []

    def make(config: EngineConfig) -> MultiprocessExecutor:
        rendezvous = tempfile.mkdtemp()
        size = config.parallel.tensor_parallel
        plan = WorkerPlan(
            world_size=size, tensor_parallel=size, pipeline_parallel=1, payload=msgspec.msgpack.encode(config),
            argv=[sys.executable, "-m", "engine.worker.remote"], rendezvous=rendezvous,
        )  # fmt: skip
        made.append(MultiprocessExecutor(plan, lambda rank: LocalWorker(config, rank, rendezvous)))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown()
        executor.shutdown()
        for process in executor._brood.processes:
            assert process.poll() is not None
            assert not Path(f"/proc/{process.pid}").exists()
        assert executor._brood.directory is None or not Path(executor._brood.directory).exists()


def ready(executor: Any, config: EngineConfig) -> Driver:
    executor.start()
    budgets = executor.budgets()
    assert len(budgets) == config.parallel.tensor_parallel
    executor.allocate(config.cache.pages, config.cache.host_pages)
    return Driver(lambda step: executor.submit(step).result(timeout=60), chunk=5)


def answers(driver: Driver) -> tuple[dict[int, list[int]], list[float]]:
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy(logprobs=2, prompt_logprobs=1))
    outputs = driver.generate(16)
    results = [result for track in driver.tracks.values() for result in track.results]
    return outputs, [entry.logprob for r in results for entry in [*(r.logprobs or []), *(r.prompt_logprobs or [])]]


@pytest.mark.parametrize("loading_workers", [None, 1])
def test_two_ranks_answer_as_one(checkpoint: Path, run_mp: Any, loading_workers: int | None) -> None:
    alone = make_config(checkpoint)
    uni = UniExecutor(lambda rank: LocalWorker(alone, rank, ""))
    expected, logprobs = answers(ready(uni, alone))
    config = make_config(checkpoint, tensor_parallel=2, loading_workers=loading_workers)
    executor = run_mp(config)
    got, found = answers(ready(executor, config))
    assert got == expected
    assert found == pytest.approx(logprobs, abs=1e-4)
    assert [set(value) for value in executor.call("memory", {})] == [{"total", "free"}] * 2
    with pytest.raises(LookupError):
        executor.call("no-such-operation", {})
    # Still in step after the failed call.
    assert [set(value) for value in executor.call("memory", {})] == [{"total", "free"}] * 2


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_worker_surfaces_within_a_second(checkpoint: Path, run_mp: Any, busy: bool) -> None:
    config = make_config(checkpoint, tensor_parallel=2)
    executor = run_mp(config)
    driver = ready(executor, config)
    driver.add(0, PROMPTS[0], greedy())
    driver.generate(2)
    victim = executor._brood.processes[0].pid
    if busy:
        # Rank 0 enters the step's first collective, for which the stopped rank never comes.
        os.kill(victim, signal.SIGSTOP)
        pending = executor.submit(Step(index=99, work=[driver.work(0)]))
        time.sleep(0.3)
        assert not pending.done()
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
    else:
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        pending = executor.submit(Step(index=99, work=[driver.work(0)]))
    with pytest.raises(WorkerDied, match=r"Worker 1 .*killed by SIGKILL"):
        pending.result(timeout=10)
    assert time.monotonic() - began < 1.0
    with pytest.raises(WorkerDied):
        executor.submit(Step(index=100)).result(timeout=1)


def test_a_silent_worker_surfaces(checkpoint: Path, run_mp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_plugins.executors._subprocess.SILENCE", 3.0)
    config = make_config(checkpoint, tensor_parallel=2)
    executor = run_mp(config)
    driver = ready(executor, config)
    driver.add(0, PROMPTS[0], greedy())
    os.kill(executor._brood.processes[0].pid, signal.SIGSTOP)
    pending = executor.submit(Step(index=0, work=[driver.work(0)], new=driver.fresh))
    with pytest.raises(WorkerDied, match="no sign of life for 3 s"):
        pending.result(timeout=10)


def test_an_error_of_a_remote_rank_is_raised_as_its_own(checkpoint: Path, run_mp: Any, tmp_path: Path) -> None:
    config = make_config(checkpoint, tensor_parallel=2)
    elsewhere = msgspec.structs.replace(config.model.checkpoint, path=str(tmp_path))
    broken = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, checkpoint=elsewhere))
    executor = run_mp(config)
    executor._plan = msgspec.structs.replace(executor._plan, payload=msgspec.msgpack.encode(broken))
    with pytest.raises(ModelFileError, match=str(tmp_path)):
        executor.start()


def test_a_worker_that_cannot_start_is_named(checkpoint: Path, run_mp: Any) -> None:
    executor = run_mp(make_config(checkpoint, tensor_parallel=2))
    executor._brood._plan = msgspec.structs.replace(executor._plan, argv=[sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(WorkerDied, match="Worker 1 ended with status 7"):
        executor.start()


PARENT = """
import sys, msgspec
from engine.config import EngineConfig
from engine.plugin import WorkerPlan
from engine.worker.worker import LocalWorker
from engine_plugins.executors.mp import MultiprocessExecutor
payload = open(sys.argv[1], "rb").read()
config = msgspec.msgpack.decode(payload, type=EngineConfig)
plan = WorkerPlan(world_size=2, tensor_parallel=2, pipeline_parallel=1, payload=payload,
                  argv=[sys.executable, "-m", "engine.worker.remote"], rendezvous=sys.argv[2])
executor = MultiprocessExecutor(plan, lambda rank: LocalWorker(config, rank, sys.argv[2]))
executor.start()
print(executor._brood.processes[0].pid, flush=True)
sys.stdin.read()
"""


def alive(process: Path) -> bool:
    """A zombie that nobody has collected yet is as dead as one that has gone."""
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_die_with_a_killed_engine(checkpoint: Path, run_mp: Any, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(msgspec.msgpack.encode(make_config(checkpoint, tensor_parallel=2)))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "config"), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = Path(f"/proc/{int(parent.stdout.readline())}")
        assert alive(worker)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while alive(worker):
            assert time.monotonic() < deadline, "the worker outlived its engine"
            time.sleep(0.05)


def test_workers_end_with_their_connection(checkpoint: Path, run_mp: Any) -> None:
    config = make_config(checkpoint, tensor_parallel=2)
    executor = run_mp(config)
    ready(executor, config)
    process = executor._brood.processes[0]
    # What the kernel does to the socket when the engine process dies.
    executor._remotes[0]._connection.close()
    assert process.wait(timeout=5) == 0
