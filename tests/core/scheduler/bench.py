"""Scheduler and simulator together, and what each request has got so far."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from engine.config import CacheConfig, SchedulerConfig
from engine.messages import Output
from engine.plugin.request import Request, SamplingParams
from engine.plugin.step import Step
from engine.scheduler import Scheduler
from tests.core.scheduler.simulator import EOS, Simulator, solo


def policy(name: str) -> Any:
    return importlib.import_module(f"engine_plugins.policies.{name}").engine_create_policy()


def preemption(name: str) -> Any:
    return importlib.import_module(f"engine_plugins.preemption.{name}").engine_create_preemption()


def request(id: str, prompt: list[int], *, max_tokens: int | None = 8, arrival: float = 0.0, **fields: Any) -> Request:
    names = SamplingParams.__struct_fields__
    params = {name: fields.pop(name) for name in list(fields) if name in names}
    fields.setdefault("eos_token_ids", (EOS,))
    return Request(
        id=id, prompt_token_ids=prompt, params=SamplingParams(max_tokens=max_tokens, **params), arrival=arrival,
        **fields
    )


class Bench:
    """Runs requests to their ends; every step is checked.

    ``ahead``: each step is scheduled before the result of the one before, where that is possible.
    """

    def __init__(
        self,
        *,
        pages: int = 64,
        block_size: int = 4,
        host_pages: int = 0,
        max_model_len: int = 200,
        budget: int = 64,
        seqs: int = 8,
        policy_name: str = "fcfs",
        mode: str = "recompute",
        prefix_caching: bool = True,
        drafts: int = 0,
        ahead: bool = False,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
        **config: Any,
    ) -> None:
        self.max_model_len = max_model_len
        cache = CacheConfig(
            block_size=block_size, dtype="auto", pages=pages, host_pages=host_pages, page_bytes=1,
            prefix_caching=prefix_caching, memory_fraction=0.9,
        )  # fmt: skip
        self.scheduler = Scheduler(
            SchedulerConfig(max_num_batched_tokens=budget, max_num_seqs=seqs, **config),
            cache,
            policy(policy_name),
            preemption(mode),
            max_model_len,
            **({} if clock is None else {"clock": clock}),
        )
        self.budget, self.seqs = budget, seqs
        self.partial = config.get("max_num_partial_prefills", 1) if config.get("chunked_prefill", True) else 0
        self.simulator = Simulator(block_size, pages, host_pages, drafts=drafts, seed=seed)
        self.requests: dict[str, Request] = {}
        self.outputs: dict[str, list[Output]] = {}
        self.steps: list[Step] = []
        self.ahead = ahead
        self.following: Step | None = None

    def add(self, *requests: Request) -> None:
        for one in requests:
            self.scheduler.add(one)
            self.requests[one.id] = one
            self.outputs[one.id] = []

    def abort(self, *ids: str) -> None:
        self.scheduler.abort(ids)
        for id in ids:
            self.requests.pop(id, None)

    def step(self) -> Step | None:
        step = self.next()
        self.scheduler.check()
        if step is None:
            assert not self.scheduler.has_work(), "work is left, but nothing runs"
            return None
        assert step.num_tokens <= self.budget
        self.look_ahead()
        assert self.scheduler.stats().running <= self.seqs
        self.finish(step)
        return step

    def next(self) -> Step | None:
        """The step that was scheduled ahead, or a new one."""
        step, self.following = self.following, None
        return step or self.scheduler.schedule()

    def look_ahead(self) -> None:
        """Schedule the step after the one in flight."""
        if self.ahead and self.scheduler.foreseeable():
            self.following = self.scheduler.schedule()

    def finish(self, step: Step) -> None:
        self.steps.append(step)
        for output in self.scheduler.commit(step, self.simulator.run(step)):
            self.outputs[output.id].append(output)
        self.scheduler.check()
        whole = {work.seq for work in self.following.work if work.sample} if self.following else set()
        partial = [sequence for sequence in self.scheduler._roster.running if sequence.remaining > 1 and sequence.number not in whole]
        assert len(partial) <= self.partial

    def run(self, limit: int = 10_000) -> None:
        for _ in range(limit):
            if self.step() is None:
                return
        raise AssertionError(f"not done after {limit} steps")

    def tokens(self, id: str) -> list[int]:
        return [token for output in self.outputs[id] for token in output.token_ids]

    def verify(self) -> None:
        """Everybody has got what he would have got alone, nothing is left behind."""
        assert not self.scheduler.has_work()
        for id, one in self.requests.items():
            outputs = self.outputs[id]
            assert self.tokens(id) == solo(one, self.max_model_len), id
            assert [output.finish_reason is not None for output in outputs] == [False] * (len(outputs) - 1) + [True]
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.swapped, stats.pages_used, stats.host_pages_used) == (0, 0, 0, 0, 0)
        assert len(self.simulator.known) <= len(self.requests) + 10_000
