"""What a step costs in the scheduler, in microseconds, by running batch, waiting queue and context length.

Run: ``PYTHONPATH=core:plugins python benchmarks/scheduler_cost.py``. Nothing is computed; tokens are made up.
"""

from __future__ import annotations

import statistics
import time

from engine.config import CacheConfig, SchedulerConfig
from engine.plugin.request import Request, SamplingParams
from engine.plugin.step import SequenceResult, Step, StepResult
from engine.scheduler import Scheduler
from engine_plugins.policies.fcfs import engine_create_policy
from engine_plugins.preemption.recompute import engine_create_preemption

STEPS = 200
CONTEXT = 4096


def answer(step: Step) -> StepResult:
    """One token for everybody."""
    results = [SequenceResult(seq=work.seq, token_ids=[7] if work.sample else []) for work in step.work]
    return StepResult(index=step.index, results=results)


def make(seqs: int, pages: int) -> Scheduler:
    """A scheduler for ``seqs`` running sequences."""
    cache = CacheConfig(
        block_size=16, dtype="auto", pages=pages, host_pages=0, page_bytes=1, prefix_caching=True, memory_fraction=0.9
    )
    config = SchedulerConfig(max_num_batched_tokens=8192, max_num_seqs=seqs)
    return Scheduler(config, cache, engine_create_policy(), engine_create_preemption(), 2 * CONTEXT)


def request(number: int, prompt: int) -> Request:
    """``prompt`` tokens that no other request has, and an answer that outlasts the measurement."""
    params = SamplingParams(max_tokens=CONTEXT - 1, ignore_eos=True)
    tokens = [number + 1] * prompt
    return Request(id=str(number), prompt_token_ids=tokens, params=params, arrival=float(number))


def measure(running: int, waiting: int, prompt: int, *, slots: bool = True) -> tuple[float, float]:
    """Median microseconds of ``schedule`` and ``commit`` while ``running`` decode and ``waiting`` cannot start.

    ``slots``: they wait for a slot; else for pages, which makes the scheduler look at the first of them in every step.
    """
    needed = running * -(-(prompt + STEPS + 80) // 16)
    scheduler = make(running if slots else running + 1, needed + (100_000 if slots else 0))
    for number in range(running):
        scheduler.add(request(number, prompt))
    while True:
        step = scheduler.schedule()
        assert step is not None
        scheduler.commit(step, answer(step))
        if len(step.work) == running and step.num_tokens == running:
            break
    too_long = running * (STEPS + 80) + 16
    for number in range(waiting):
        scheduler.add(request(running + number, 64 if slots else too_long))
    planning, committing = [], []
    for _ in range(STEPS):
        begin = time.perf_counter()
        step = scheduler.schedule()
        middle = time.perf_counter()
        assert step is not None
        result = answer(step)
        assert len(step.work) == running
        start = time.perf_counter()
        scheduler.commit(step, result)
        committing.append(time.perf_counter() - start)
        planning.append(middle - begin)
    return statistics.median(planning) * 1e6, statistics.median(committing) * 1e6


def report(title: str, running: int, waiting: int, prompt: int, *, slots: bool = True) -> None:
    """One line."""
    planning, committing = measure(running, waiting, prompt, slots=slots)
    print(f"{title:40}  schedule {planning:8.0f} µs   commit {committing:8.0f} µs")


def main() -> None:
    """Print the table."""
    for running in (1, 4, 16, 64, 256):
        report(f"running {running:3}, context 256", running, 0, 256)
    for context in (16, 256, 1024, CONTEXT):
        report(f"running  64, context {context}", 64, 0, context)
    for waiting in (0, 100, 1000, 10_000):
        report(f"running  64, waiting {waiting} for a slot", 64, waiting, 256)
    for waiting in (0, 100, 1000, 10_000):
        report(f"running  16, waiting {waiting} for pages", 16, waiting, 1024, slots=False)


if __name__ == "__main__":
    main()
