"""``--scheduler-delay-factor``: collect prompts for a while before admitting them."""

from __future__ import annotations

from collections import OrderedDict

from engine.scheduler.sequence import Sequence


class AdmissionDelay:
    """New prompts wait until the oldest has waited ``factor`` times the last step with prompts. Factor 0: never."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seconds = 0.0
        self._queued: OrderedDict[int, float] = OrderedDict()

    def joined(self, sequence: Sequence) -> None:
        """It waits now. One that waited before counts as the oldest."""
        if self._factor > 0:
            self._queued[sequence.number] = sequence.queued
            if sequence.told:
                self._queued.move_to_end(sequence.number, last=False)

    def left(self, sequence: Sequence) -> None:
        """It waits no more."""
        self._queued.pop(sequence.number, None)

    def observe(self, seconds: float) -> None:
        """A step that computed prompts took so long."""
        self._seconds = seconds

    def over(self, now: float) -> bool:
        """Whether prompts may start now."""
        if not self._queued:
            return True
        return now - next(iter(self._queued.values())) > self._factor * self._seconds
