"""How long running sequences may have to wait for prompts that share their steps."""

from __future__ import annotations

import statistics
from collections import deque

from engine.config import SchedulerConfig

#: Seconds that a step with prompts and running sequences may take: what a reader of a stream does not call a stop.
STALL_SECONDS = 0.2
#: Tokens that a limit leaves, however slow the model is: in smaller steps each costs more (measured on CPUs: a tenth more at 64).
LEAST_TOKENS = 64
#: Limits are multiples of this, so that noise does not move them.
QUANTUM = 64
#: Steps whose median tells what a token costs. Fewer than the second number tell nothing yet.
REMEMBERED, ENOUGH = 9, 3


class Mixing:
    """Tokens for steps in which prompts are computed while others decode.

    Without ``SchedulerConfig.mixed_tokens`` there is no limit. With it that number counts until steps have shown how many tokens take
    :data:`STALL_SECONDS`.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._most = config.max_num_batched_tokens
        self._tokens = config.mixed_tokens
        self._costs: deque[float] = deque(maxlen=REMEMBERED)

    def limit(self, decoding: int, prompts: int, backlog: int) -> int | None:
        """All tokens of a step with so many ``decoding``, while ``prompts`` of ``backlog`` tokens in all are there. None: no limit.

        There is none for a crowd: as many prompts that those who would get their first token late are many beside those who would
        wait for their next, all short or more than a whole step's tokens.
        """
        if not (self._tokens and decoding):
            return None
        if prompts > 1 and 2 * prompts >= decoding and (backlog >= self._most or backlog <= prompts * self._tokens):
            return None
        return max(self._tokens, decoding + min(LEAST_TOKENS, self._tokens // 2))

    def observe(self, tokens: int, seconds: float) -> None:
        """A step with prompts had so many tokens and took so long."""
        if not self._tokens or tokens < LEAST_TOKENS or seconds <= 0:
            return
        self._costs.append(seconds / tokens)
        if len(self._costs) >= ENOUGH:
            tokens = int(STALL_SECONDS / statistics.median(self._costs)) // QUANTUM * QUANTUM
            self._tokens = max(LEAST_TOKENS, min(tokens, self._most))
