"""The prompts of a load, as in_turns.py names it: ``batch inputs outputs [shared [known]]``."""

from __future__ import annotations

import random


class Prompts:
    """Prompts of random ids. Those of a load begin with the same ``shared`` ids: new ones, or (``known`` 1) those of the load before."""

    def __init__(self, seed: int | None) -> None:
        self._source = random.Random(seed)
        self._prefix: list[int] = []

    def of(self, line: str) -> tuple[list[list[int]], int]:
        """A load's prompts, and the tokens that each is answered with."""
        batch, inputs, outputs, shared, known = [*map(int, line.split()), 0, 0][:5]
        if not known:
            self._prefix = self._ids(shared)
        return [self._prefix + self._ids(inputs - shared) for _ in range(batch)], outputs

    def _ids(self, count: int) -> list[int]:
        return [self._source.randrange(1000, 150000) for _ in range(count)]
