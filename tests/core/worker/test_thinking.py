"""The thinking budget: what is forced follows from the tokens alone."""

from __future__ import annotations

import pytest

from engine.plugin.request import SamplingParams, ThinkingLimit
from engine.plugin.step import NewSequence
from engine.worker.sequences import Sequence
from engine.worker.thinking import forced_token

START, END, NOTE = 1, 2, 3


def sequence(output: list[int], prompt: tuple[int, ...] = (9, START, 9)) -> Sequence:
    new = NewSequence(seq=0, token_ids=[*prompt, *output], num_prompt=len(prompt), params=SamplingParams())
    return Sequence(new, 0)


def forced(output: list[int], budget: int, *, open: bool = False, tokens: tuple[int, ...] = (END,)) -> int | None:
    known = sequence(output)
    return forced_token(ThinkingLimit(budget, open, (START,), (END,), tokens), known, known.length)


@pytest.mark.parametrize(("output", "budget", "open", "token"), [
    ([], 0, True, END), ([], 0, False, None), ([START], 0, False, END), ([START], 1, False, None), ([START, 5], 1, False, END),
    ([START, END], 1, False, None), ([START, 5, END], 1, False, None), ([START, 5, END, 6, 7], 1, False, None),
    ([5, 6, 7], 2, False, None), ([5, 6], 2, True, END), ([5, END], 2, True, None), ([5, END, 6, 7], 2, True, None),
    ([8, START, 5], 1, False, END), ([START, 5, 6], 1, False, None),
])  # fmt: skip
def test_forced(output, budget, open, token):
    assert forced(output, budget, open=open) == token


def test_several_tokens_are_forced_one_after_the_other():
    output, wanted = [START, 5, 6], (NOTE, NOTE, END)
    for token in wanted:
        assert forced(output, 2, tokens=wanted) == token
        output.append(token)
    assert forced(output, 2, tokens=wanted) is None
    assert forced([START, 5, 6, NOTE, 7], 2, tokens=wanted) is None


def test_earlier_lengths_are_asked_too():
    """Rows of drafts look at the first ``length`` tokens alone."""
    known = sequence([START, 5, 6, 7])
    limit = ThinkingLimit(2, False, (START,), (END,), (END,))
    assert [forced_token(limit, known, 3 + length) for length in range(5)] == [None, None, None, END, None]
