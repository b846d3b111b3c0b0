"""The scheduler decides what each step computes and draws the conclusions of what it gave; it touches no tensor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from engine.config import CacheConfig, SchedulerConfig
from engine.errors import RequestError
from engine.kvcache.cache import KVCache
from engine.messages import Output, Stats
from engine.plugin.contracts.scheduling import PreemptionMode, SchedulingPolicy
from engine.plugin.request import Request
from engine.plugin.step import Step, StepResult
from engine.scheduler.admission import Admission
from engine.scheduler.commit import settle
from engine.scheduler.delay import AdmissionDelay
from engine.scheduler.entry import Entrance
from engine.scheduler.mixing import Mixing
from engine.scheduler.plan import StepPlan
from engine.scheduler.preempt import Preemption
from engine.scheduler.prefills import PrefillShares
from engine.scheduler.roster import Roster
from engine.scheduler.sequence import Sequence, State
from engine.scheduler.spending import Spending

#: With so many free pages for each decoding sequence, one gets its next page a step before it needs it.
PLENTY = 8


class Scheduler:
    """``schedule``, run the step, ``commit`` its result, again and again; ``add`` and ``abort`` at any time, on one thread.

    A step may be scheduled while one is in flight and :meth:`foreseeable`. It counts every sequence of that one as a token further; what
    it gives a sequence that turns out to have ended is passed over. Workers run steps in order, so pages may change hands at once.
    ``cache.pages`` is what the workers really have. ``clock`` gives monotonic seconds; ``timed``: outputs tell what time was
    spent on their sequences.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        cache: CacheConfig,
        policy: SchedulingPolicy,
        preemption: PreemptionMode,
        max_model_len: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        timed: bool = False,
    ) -> None:
        self._spending = Spending() if timed else None
        self._config = config
        self._clock = clock
        self._policy = policy
        self._cache: KVCache[Sequence] = KVCache(cache)
        self._entrance = Entrance(self._cache, policy, max_model_len)
        self._shares = PrefillShares(config, max_model_len)
        self._mixing = Mixing(config)
        self._roster = Roster(self._shares.threshold, AdmissionDelay(config.delay_factor))
        self._preemption = Preemption(self._cache, self._roster, preemption)
        self._admission = Admission(
            config, self._cache, self._roster, policy, self._preemption, self._shares, clock
        )
        self._ended: list[int] = []
        self._in_flight: deque[Step] = deque()
        self._with_prompts: deque[bool] = deque()
        self._dispatched = 0
        self._numbers = 0
        self._steps = 0
        self._step_tokens = 0
        self._step_seconds = 0.0

    def add(self, request: Request) -> None:
        """Queue ``request``. What can never run is refused with a :class:`RequestError`."""
        self._entrance.check(request)
        if request.id in self._roster.by_id:
            raise RequestError(f"A request with the id {request.id!r} is running already.", param="request_id")
        tokens = list(request.prompt_token_ids)
        table = self._cache.table(tokens, request.adapter, request.cache_salt, request.multimodal)
        sequence = Sequence(self._numbers, request, tokens, table, self._entrance.limit(request), self._clock())
        sequence.key = self._policy.key(sequence.view())
        self._numbers += 1
        self._roster.add(sequence)

    def abort(self, ids: Iterable[str]) -> None:
        """Forget these requests and free their pages; unknown ids are ones that have just ended, and ignored."""
        for request_id in ids:
            sequence = self._roster.by_id.get(request_id)
            if sequence is not None:
                self._end(sequence)

    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._roster.by_id)

    def schedule(self) -> Step | None:
        """The next step; None where nothing can run. A step in flight must be foreseeable."""
        if self._spending is None:
            return self._plan()
        began = time.perf_counter()
        step = self._plan()
        if step is not None:
            self._spending.planned(step, time.perf_counter() - began)
        return step

    def _plan(self) -> Step | None:
        if self._in_flight:
            self._expect()
        self._cache.host.settle()
        self._roster.wake(self._cache.claims.woken())
        plan = StepPlan(self._config.max_num_batched_tokens)
        if self._config.chunked_prefill:
            self._continue_decodes(plan)
            self._continue_prompts(plan, mixed=True)
            self._admission.fill(plan)
            self._shares.top_up(plan)
        else:
            self._admission.fill(plan, resume=False)
            if not plan.counts:
                self._continue_decodes(plan)
                self._continue_prompts(plan)
                self._admission.fill(plan, start=False)
        return None if plan.empty() else self._dispatch(plan)

    def foreseeable(self) -> bool:
        """Whether the step after the one in flight can be the right one before its result is known.

        Not where drafts may be accepted, where an end that is sure makes room for somebody who waits, and where prompts are computed
        whose blocks others wait for.
        """
        if len(self._in_flight) != 1:
            return not self._in_flight
        roster = self._roster
        contested = roster.waiting + len(roster.swapped) > 0
        if contested and roster.parked and self._with_prompts[0]:
            return False
        for work in self._in_flight[0].work:
            sequence = roster.by_number.get(work.seq)
            if sequence is None:
                continue
            if work.draft or sequence.draft:
                return False
            if contested and work.sample and len(sequence.tokens) + 1 >= sequence.limit:
                return False
        return True

    def requests(self, step: Step) -> list[str]:
        """The ids of the requests that the step computes something for."""
        numbers = self._roster.by_number
        return [numbers[work.seq].request.id for work in step.work if work.seq in numbers]

    def commit(self, step: Step, result: StepResult) -> list[Output]:
        """Draw the conclusions of ``result``: what each request gets, which sequences end.

        Aborted ones are passed over.
        """
        self._take(step, result)
        outputs = []
        for work, answer in zip(step.work, result.results, strict=True):
            if answer.seq != work.seq:
                raise RuntimeError(f"step {step.index}: sequence {answer.seq}'s result came in place of {work.seq}'s")
            sequence = self._roster.by_number.get(work.seq)
            if sequence is None:
                continue
            output = settle(sequence, work, answer)
            if self._spending is not None:
                output = self._spending.share(sequence.number, output)
            if sequence.state is State.RUNNING and (output is None or output.error is None):
                self._cache.publish(sequence.table, sequence.computed)
            if output is not None:
                outputs.append(output)
                if output.finish_reason is not None:
                    self._end(sequence, failed=output.error is not None)
        return outputs

    def _take(self, step: Step, result: StepResult) -> None:
        """The step in flight is over."""
        if not self._in_flight or step is not self._in_flight[0] or result.index != step.index or len(result.results) != len(step.work):
            raise RuntimeError(f"the result of step {result.index} does not answer the step in flight")
        self._in_flight.popleft()
        self._steps += 1
        self._step_tokens += step.num_tokens
        self._step_seconds += result.seconds
        if self._spending is not None:
            self._spending.ran(step, result)
        if self._with_prompts.popleft():
            self._roster.delay.observe(result.seconds)
            self._mixing.observe(step.num_tokens, result.seconds)

    def stats(self) -> Stats:
        """The state now."""
        pool, host, roster = self._cache.pool, self._cache.host, self._roster
        return Stats(
            running=len(roster.running),
            waiting=roster.waiting,
            swapped=len(roster.swapped),
            pages=pool.size,
            pages_used=pool.used,
            host_pages=host.size,
            host_pages_used=host.used,
            preemptions=self._preemption.count,
            prefix_queries=self._admission.queries,
            prefix_hits=self._admission.hits,
            steps=self._steps,
            step_tokens=self._step_tokens,
            step_seconds=self._step_seconds,
        )

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes.

        False (nothing forgotten) while any request holds pages: it would publish old content again.
        """
        if self._cache.pool.used or self._cache.host.used:
            return False
        self._cache.pool.clear()
        return True

    def check(self) -> None:
        """Raise ``RuntimeError`` where the books are wrong. For tests: costs time linear in everything."""
        self._cache.check(sequence.table for sequence in self._roster.by_number.values())
        self._roster.check()
        for sequence in self._roster.running:
            held = len(sequence.table.pages)
            if not self._cache.pages_for(sequence.computed) <= held <= self._cache.pages_for(sequence.longest):
                raise RuntimeError(f"sequence {sequence.number} holds {held} pages, too few or more than it can use")

    def _continue_decodes(self, plan: StepPlan) -> None:
        """Whoever has one token to compute computes it, and drafts as far as tokens and pages last."""
        decoding = [sequence for sequence in self._roster.running if sequence.remaining == 1 and not sequence.full]
        spare = plan.tokens_left - len(decoding)
        # Room for the token after it, too: the worker begins the step that will follow before it is asked to.
        further = max(self._config.lookahead_slots, int(self._cache.pool.free > PLENTY * len(decoding)))
        for sequence in decoding:
            if sequence.state is not State.RUNNING:
                continue
            if plan.tokens_left == 0:
                return
            draft = sequence.draft[: max(0, min(spare, sequence.limit - len(sequence.tokens) - 1))]
            length = len(sequence.tokens)
            reserve = min(length + len(draft) + further, sequence.longest)
            if not self._cache.grow(sequence.table, reserve):
                draft = []
                if not self._preemption.make_room(sequence, length, plan):
                    continue
            spare -= len(draft)
            plan.take(sequence, 1 + len(draft), draft)

    def _continue_prompts(self, plan: StepPlan, mixed: bool = False) -> None:
        """The prompts that are under way share what the decodes left; ``mixed``: and what :class:`Mixing` leaves."""
        prompts = [sequence for sequence in self._roster.running if sequence.remaining > 1]
        if mixed:
            under_way = sum(sequence.remaining for sequence in prompts)
            plan.limit(self._mixing.limit(len(plan.counts), len(prompts) + self._roster.ready(True), under_way + self._roster.backlog))
        for index, sequence in enumerate(prompts):
            others = len(prompts) - index - 1 + self._roster.ready(self._shares.long_allowed(plan))
            count = self._shares.chunk(plan, sequence.remaining, others)
            self._shares.note(plan, sequence.remaining, count)
            if count:
                plan.take(sequence, count)

    def _dispatch(self, plan: StepPlan) -> Step:
        ended, self._ended = self._ended, []
        step = plan.step(self._dispatched, ended)
        self._dispatched += 1
        self._with_prompts.append(plan.prompts)
        self._in_flight.append(step)
        return step

    def _expect(self) -> None:
        """Count the step in flight as done."""
        if not self.foreseeable():
            raise RuntimeError(f"step {self._in_flight[0].index} is not committed")
        for work in self._in_flight[0].work:
            sequence = self._roster.by_number.get(work.seq)
            if sequence is not None and not sequence.expected:
                sequence.expect(work)

    def _end(self, sequence: Sequence, *, failed: bool = False) -> None:
        self._roster.end(sequence)
        if failed:
            self._cache.discard(sequence.table)
        else:
            self._cache.close(sequence.table)
        if self._spending is not None:
            self._spending.forget(sequence.number)
        if sequence.told:
            self._ended.append(sequence.number)
