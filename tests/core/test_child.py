"""A child process begins deaf to what asks its group to end, and its end is seen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from engine.child import Child
from engine.parent import held_ends

ENDS = {signal.SIGINT, signal.SIGTERM}


def blocked() -> set[signal.Signals]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) & ENDS


def test_signals_come_again_however_holds_overlap() -> None:
    first, second = held_ends(), held_ends()
    with first:
        assert blocked() == ENDS
        second.__enter__()
    second.__exit__(None, None, None)
    assert blocked() == set()


async def test_a_child_hears_nothing_before_it_says_so() -> None:
    program = "import sys, time; from engine.parent import ignore_ends; time.sleep(0.3); ignore_ends(); sys.exit(7)"
    child = Child([sys.executable, "-c", program], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    for number in ENDS:
        child.send_signal(number)
    assert child.returncode is None
    async with asyncio.timeout(30):
        assert await child.wait() == 7
    assert child.returncode == 7
    child.send_signal(signal.SIGTERM)


async def test_a_killed_child_says_by_what() -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    child.kill()
    async with asyncio.timeout(30):
        assert await child.wait() == -signal.SIGKILL
