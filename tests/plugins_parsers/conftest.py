"""A check of time that holds on slow machines: ten times the text may take little more than ten times as long."""

from __future__ import annotations

import time

import pytest

#: Characters per piece.
PIECE = 64
#: Seconds for a million characters in pieces, far above what a linear parser takes.
MOST = 10.0


@pytest.fixture
def linear():
    """Feed a text in pieces and at once; either must end in time."""

    def check(make, text):
        for size in (PIECE, len(text)):
            begun = time.perf_counter()
            state = make()
            for at in range(0, len(text), size):
                state.feed(text[at : at + size], ())
            state.finish()
            assert time.perf_counter() - begun < MOST

    return check
