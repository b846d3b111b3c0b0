"""When a sequence ends."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

from engine.plugin.request import FinishReason
from engine.scheduler.sequence import Sequence


class Ending(NamedTuple):
    """How many of the sampled tokens count, and whether the last of them ends the sequence.

    ``token`` is the stop token that did it, None for EOS.
    """

    taken: int
    reason: FinishReason | None
    token: int | None


def ending(sequence: Sequence, sampled: Many[int]) -> Ending:
    """Look at the ``sampled`` tokens in order; those after an end do not count. The ending token itself does."""
    request, params = sequence.request, sequence.request.params
    length = len(sequence.tokens)
    # The first min_tokens tokens never stop: the sampler forbids stop tokens there, and what came through all the
    # same is text.
    first_stop = sequence.num_prompt + params.min_tokens
    for taken, token in enumerate(sampled):
        if length + taken >= sequence.limit:
            return Ending(taken, FinishReason.LENGTH, None)
        if length + taken >= first_stop:
            if token in request.eos_token_ids and not params.ignore_eos:
                return Ending(taken + 1, FinishReason.STOP, None)
            if token in params.stop_token_ids:
                return Ending(taken + 1, FinishReason.STOP, token)
    over = length + len(sampled) >= sequence.limit
    return Ending(len(sampled), FinishReason.LENGTH if over else None, None)
