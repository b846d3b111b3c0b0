"""When a fork that compiles has to end: by the processor's seconds, and by the clock where the machine is busy."""

from __future__ import annotations

import os
import signal
import time

import pytest

from engine.guided.messages import Job, Verdict
from engine.guided.process import BUSY_SECONDS, LAST, PATIENCE, SECONDS, Fork, _verdict, cpu_seconds, late
from engine.plugin import GuideSpec


@pytest.mark.parametrize(
    ("passed", "used", "wanted"),
    [
        (0.5, 0.5, None), (SECONDS + 0.1, SECONDS + 0.05, Verdict.EXPENSIVE), (PATIENCE - 0.1, SECONDS - 0.1, None),
        (PATIENCE + 0.1, BUSY_SECONDS + 0.1, Verdict.EXPENSIVE), (PATIENCE + 0.1, BUSY_SECONDS / 2, None),
        (LAST - 0.1, BUSY_SECONDS / 2, None),
        (LAST + 0.1, BUSY_SECONDS / 2, Verdict.BUSY),
    ],
)  # fmt: skip
def test_who_has_to_end(passed, used, wanted):
    assert late(passed, used) is wanted


def test_hostile_constraints_are_answered_within_two_seconds():
    assert SECONDS < PATIENCE < 2.0


def test_the_clock_of_a_child_is_the_processors():
    """A child that sleeps uses nothing; one that works uses what it works."""
    asleep, working = os.fork(), None
    if asleep == 0:
        time.sleep(60)
        os._exit(0)
    working = os.fork()
    if working == 0:
        while True:
            pass
    try:
        until = time.monotonic() + 20
        while cpu_seconds(working) < 0.2 and time.monotonic() < until:
            time.sleep(0.01)
        assert cpu_seconds(working) >= 0.2 and cpu_seconds(asleep) < 0.1
    finally:
        for child in (asleep, working):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert cpu_seconds(working) == 0.0, "it has ended"


def test_what_is_said_of_it():
    job = Job(3, GuideSpec("regex", "a"))
    killed = signal.SIGKILL.value
    slow = _verdict(Fork(job, 1, 0.0, late=Verdict.EXPENSIVE, used=SECONDS + 0.01), killed)
    starved = _verdict(Fork(job, 1, 0.0, late=Verdict.EXPENSIVE, used=SECONDS - 0.01), killed)
    busy = _verdict(Fork(job, 1, 0.0, late=Verdict.BUSY, used=0.1), killed)
    assert slow.verdict is starved.verdict is Verdict.EXPENSIVE and not slow.passing and starved.passing
    assert "longer than 1.2 s to compile" in slow.text and "busy processor" in starved.text
    assert busy.verdict is Verdict.BUSY and "too busy" in busy.text
