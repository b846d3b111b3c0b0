"""Taking pages away from running sequences."""

from __future__ import annotations

from engine.errors import ContractViolation
from engine.kvcache.cache import KVCache
from engine.plugin.contracts.scheduling import PreemptionMode
from engine.scheduler.plan import StepPlan
from engine.scheduler.roster import Roster
from engine.scheduler.sequence import Sequence


class Preemption:
    """Carries out what the preemption mode decides. ``count`` counts."""

    def __init__(self, cache: KVCache[Sequence], roster: Roster, mode: PreemptionMode) -> None:
        self._cache = cache
        self._roster = roster
        self._mode = mode
        self.count = 0

    def preempt(self, victim: Sequence, plan: StepPlan) -> None:
        """Take ``victim`` out of the running ones and out of the step."""
        plan.drop(victim)
        plan.preempted[victim] = None
        swap = self._swaps(victim)
        if swap:
            plan.swap_out += self._cache.swap_out(victim.table, victim.computed)
        else:
            self._cache.close(victim.table)
            victim.computed = 0
        self._roster.preempt(victim, swap)
        self.count += 1

    def make_room(self, sequence: Sequence, tokens: int, plan: StepPlan) -> bool:
        """Give ``sequence`` pages for ``tokens`` tokens, where needed from the worst running ones.

        False: it was the worst itself, and is preempted.
        """
        while not self._cache.grow(sequence.table, tokens):
            victim = self._roster.running.worst()
            self.preempt(victim, plan)
            if victim is sequence:
                return False
        return True

    def _swaps(self, victim: Sequence) -> bool:
        pages, room = self._cache.pages_for(victim.computed), self._cache.host.free
        if pages == 0 or not self._mode.swap(victim.view(), pages, room):
            return False
        if pages > room:
            raise ContractViolation(
                f"The preemption mode {type(self._mode).__name__} wants to swap {pages} pages, "
                f"but only {room} host pages are free."
            )
        return True
