"""Guilt is proven: what comes from outside costs no request, whatever it hits, and a request that ends engines fails soon."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from engine.death import Death, kernel_kills, own_doing, stopped
from engine.errors import WorkerDied
from engine.inquest import Inquest
from engine.journal import Entry
from engine.messages import Output
from engine.plugin.request import Request, SamplingParams
from engine.record import PROVEN


def entry(id: str, since: float = 0.0) -> Entry:
    made = Entry(Request(id=id, prompt_token_ids=[1], params=SamplingParams(), arrival=0.0))
    made.send()
    made.since = since
    return made


def death(at: float, *at_work: str, own: bool = True) -> Death:
    return Death(WorkerDied("it died."), own, at, frozenset(at_work))


def test_the_second_death_alone_in_question_proves_it() -> None:
    inquest, one, other = Inquest(), entry("one"), entry("other")
    assert inquest.hold([one, other], death(0.1, "one")) == []
    assert (one.deaths, one.doubtful, other.doubtful) == (1, True, False)
    assert inquest.hold([one, other], death(0.2, "one")) == [one]


def test_several_in_question_are_in_doubt() -> None:
    inquest, entries = Inquest(), [entry("one"), entry("other"), entry("waits")]
    for _ in range(5):
        assert inquest.hold(entries, death(0.1, "one", "other")) == []
    assert [each.doubtful for each in entries] == [True, True, False] and entries[0].deaths == 0


def test_deaths_from_outside_count_for_nothing() -> None:
    inquest, one = Inquest(), entry("one")
    for number in range(50):
        assert inquest.hold([one], death(number / 10, "one", own=False)) == []
    assert not one.doubtful and one.deaths == 0


def test_who_has_got_tokens_is_above_suspicion() -> None:
    inquest, one = Inquest(), entry("one")
    inquest.hold([one], death(0.1, "one"))
    one.deliver(Output(id="one", token_ids=list(range(PROVEN))))
    assert (one.deaths, one.doubtful, one.chance) == (0, False, 1.0)
    assert inquest.hold([one], death(0.2, "one")) == []
    one.lose_life()
    assert not one.proven.is_set()


def test_where_engines_die_often_more_deaths_are_needed() -> None:
    inquest, one = Inquest(), entry("one", since=100.0)
    for number in range(10):
        inquest.hold([], death(80.0 + 2 * number, own=False))
    assert inquest.rate(100.0) == pytest.approx(0.5)
    assert [len(inquest.hold([one], death(100.05, "one"))) for _ in range(4)] == [0, 0, 0, 1]


def test_a_storm_of_crashes_condemns_nobody() -> None:
    """Ten thousand crashes at random moments; each life tries one request after the other for 0.1 s of its 1.4."""
    dice, inquest, now, accused = random.Random(1), Inquest(), 0.0, 0
    for _ in range(10_000):
        one = entry("one", since=now)
        while True:
            now += dice.expovariate(0.7)
            if now - one.since > 0.1:
                inquest.hold([one], death(now))
                break
            assert inquest.hold([one], death(now, "one")) == []
            accused += 1
            one.since = now
    assert accused > 500


def ended_by(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode


def test_whose_doing_an_end_is() -> None:
    before = kernel_kills()
    assert own_doing(ended_by("import ctypes; ctypes.string_at(0)"), before)
    assert own_doing(ended_by("import os; os.abort()"), before)
    assert own_doing(77, before) and own_doing(0, before)
    assert not own_doing(ended_by("import os; os.kill(os.getpid(), 15)"), before)
    if before is None:
        pytest.skip("nobody counts processes that were killed for want of memory here")
    assert not own_doing(-signal.SIGKILL, before)
    assert own_doing(-signal.SIGKILL, before - 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="states of processes are read from /proc")
def test_a_stopped_process_is_known() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        end = time.monotonic() + 10
        while not stopped(process.pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert stopped(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not stopped(process.pid)
