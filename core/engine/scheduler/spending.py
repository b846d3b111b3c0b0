"""What time the steps of each sequence took, where somebody wants to know."""

from __future__ import annotations

import msgspec

from engine.messages import Output, Spent
from engine.plugin.step import Step, StepResult


class Spending:
    """Sums per sequence, by its number, from its first step to its end."""

    def __init__(self) -> None:
        self._planning: dict[int, float] = {}
        self._sums: dict[int, Spent] = {}
        self._last = Spent()

    def planned(self, step: Step, seconds: float) -> None:
        """The step took so long to plan."""
        self._planning[step.index] = seconds

    def ran(self, step: Step, result: StepResult) -> None:
        """The step has run."""
        self._last = Spent(self._planning.pop(step.index, 0.0), result.seconds, result.forward)

    def share(self, sequence: int, output: Output | None) -> Output | None:
        """The sequence had a part in the step, and waited for all of it; its output tells the sums."""
        sums, last = self._sums.get(sequence, Spent()), self._last
        sums = Spent(sums.scheduling + last.scheduling, sums.execute + last.execute, sums.forward + last.forward)
        self._sums[sequence] = sums
        return None if output is None else msgspec.structs.replace(output, spent=sums)

    def forget(self, sequence: int) -> None:
        """The sequence has ended."""
        self._sums.pop(sequence, None)
