"""When a step will be nearly over, from how long the last step of its size took."""

from __future__ import annotations

from engine.plugin.step import Step

#: A step counts as nearly over when so many seconds, and this share of it, are left: what deciding on the next one takes, many times over.
LEFT_SECONDS = 0.002
LEFT_SHARE = 0.05


#: Steps with prompts count as of one size within so many tokens.
TOKENS_ALIKE = 32


class Forecast:
    """Steps of as many sequences or tokens take about as long as each other."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[bool, int], float] = {}

    def observe(self, step: Step, seconds: float) -> None:
        """A step took so long."""
        self._seconds[_size(step)] = seconds

    def seconds_until_nearly_over(self, step: Step) -> float | None:
        """From its beginning; None where there was no such step yet."""
        seconds = self._seconds.get(_size(step))
        return None if seconds is None else seconds * (1 - LEFT_SHARE) - LEFT_SECONDS


def _size(step: Step) -> tuple[bool, int]:
    sequences, tokens = len(step.work), step.num_tokens
    return (True, sequences) if sequences == tokens else (False, tokens // TOKENS_ALIKE)
