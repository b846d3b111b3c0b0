"""The thinking budget: when it is used up, the tokens that end the thinking are forced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.plugin.request import ThinkingLimit
from engine.worker.sequences import Sequence


def forced_token(limit: ThinkingLimit, sequence: Sequence, length: int) -> int | None:
    """The token that must come after ``length`` tokens, or None. Decided by the tokens alone, so it is the same in any step and process."""
    output = sequence.tokens[sequence.num_prompt : length]
    begin = 0 if limit.open else _after(output, limit.start)
    if begin is None:
        return None
    spent = len(output) - begin - limit.budget
    if not 0 <= spent < len(limit.forced):
        return None
    thoughts = output[begin : begin + limit.budget]
    if _after(thoughts, limit.end) is not None:
        return None
    if tuple(output[begin + limit.budget :].tolist()) != limit.forced[:spent]:
        return None
    return limit.forced[spent]


def _after(tokens: NDArray[np.int32], marker: tuple[int, ...]) -> int | None:
    """The place after the first occurrence of ``marker``, or None."""
    for place in np.flatnonzero(tokens == marker[0]).tolist():
        if tuple(tokens[place : place + len(marker)].tolist()) == marker:
            return int(place) + len(marker)
    return None
