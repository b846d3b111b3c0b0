"""Failures of plugins: named, counted, and too many switch a plugin off for a while; calls that never end are interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from engine.errors import ConfigError, PluginFault, RequestError
from engine.plugin import alarm
from engine.plugin.alarm import PluginTimeout, limited
from engine.plugin.api import Choice
from engine.plugin.faults import BUDGET, LONGEST_PAUSE, PAUSE, WINDOW, Faults, attributed

PARSER = Choice("tool_parser", "acme", "acme", "acme-engine 0.3", "acme")
POLICY = Choice("policy", "acme", "acme", "acme-engine 0.3", "acme")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults(clock: Clock) -> Faults:
    return Faults(clock=clock)


def fail(faults: Faults, choice: Choice, times: int = 1) -> None:
    for _ in range(times):
        faults.check(choice)
        faults.record(choice, "ValueError: a bug")


def test_an_error_names_the_plugin(faults: Faults) -> None:
    said = r"--tool-call-parser acme \(from acme-engine 0\.3\) failed: ValueError: a bug"
    with pytest.raises(PluginFault, match=said) as caught, faults.guarded(PARSER):
        raise ValueError("a   bug")
    assert caught.value.plugin is PARSER


def test_the_engines_own_refusals_pass(faults: Faults) -> None:
    with pytest.raises(RequestError, match="too long"), faults.guarded(PARSER):
        raise RequestError("too long")
    assert faults.standings() == []


def test_the_budget(faults: Faults, clock: Clock) -> None:
    fail(faults, PARSER, BUDGET)
    with pytest.raises(RequestError, match="switched off after 5 failures; it is tried again in 60 s. The last failure: ValueError") as off:
        faults.check(PARSER)
    assert (off.value.http_status, off.value.code, off.value.retry_after) == (503, "plugin_quarantined", 60)
    clock.now += PAUSE + 0.1
    fail(faults, PARSER)  # one is enough now, and the pause doubles
    assert faults.standings()[0]["quarantined_seconds"] == 2 * PAUSE
    for _ in range(10):
        clock.now += faults.standings()[0]["quarantined_seconds"] + 0.6
        fail(faults, PARSER)
    assert faults.standings()[0]["quarantined_seconds"] == LONGEST_PAUSE


def test_a_plugin_that_does_well_again_starts_anew(faults: Faults, clock: Clock) -> None:
    fail(faults, PARSER, BUDGET)
    clock.now += PAUSE + WINDOW + 1
    faults.check(PARSER)
    clock.now += WINDOW + 1
    faults.check(PARSER)
    fail(faults, PARSER, BUDGET - 1)
    faults.check(PARSER)


def test_few_among_many_uses_are_within_it(faults: Faults) -> None:
    for _ in range(50):
        for _ in range(3):
            faults.check(PARSER)
        fail(faults, PARSER)
    faults.check(PARSER)


def test_slow_failures_are_within_it(faults: Faults, clock: Clock) -> None:
    for _ in range(5 * BUDGET):
        fail(faults, PARSER)
        clock.now += WINDOW / 2
    faults.check(PARSER)


def test_what_everything_needs_is_counted_only(faults: Faults) -> None:
    fail(faults, POLICY, 10 * BUDGET)
    faults.check(POLICY)
    assert faults.standings() == [
        {"kind": "policy", "name": "acme", "distribution": "acme-engine 0.3", "failures": 50, "last": "ValueError: a bug",
         "quarantined_seconds": 0}
    ]  # fmt: skip


def test_errors_of_the_engine_process_are_attributed(faults: Faults) -> None:
    seen = []

    def choose(kind: str, name: str) -> Choice:
        seen.append((kind, name))
        return PARSER

    found = faults.of_output(attributed("tool_parser", "acme", "ValueError: x"), choose)
    assert found is not None and str(found).endswith("failed: ValueError: x")
    assert seen == [("tool_parser", "acme")]
    assert faults.of_output("every token is forbidden by the request's constraints", choose) is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(alarm.VARIABLE, "0.2")
    before = signal.getsignal(signal.SIGALRM)
    alarm.install()
    yield
    signal.signal(signal.SIGALRM, before)


def loop() -> None:
    while True:
        pass


def test_the_main_thread_is_interrupted(quick: None, faults: Faults) -> None:
    for endless in (loop, lambda: time.sleep(60), threading.Event().wait):
        began = time.monotonic()
        with pytest.raises(PluginFault, match="took too long"):
            faults.call(PARSER, endless)
        assert time.monotonic() - began < 2


def test_another_thread_is_interrupted_and_goes_on(quick: None) -> None:
    told: list[str] = []

    def run() -> None:
        for _ in range(2):
            try:
                with limited():
                    loop()
            except PluginTimeout:
                told.append("interrupted")
        for _ in range(2000):
            with limited(), limited():
                pass
        time.sleep(0.8)  # what was meant for the past must not come now
        told.append("done")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert told == ["interrupted", "interrupted", "done"]


def test_a_late_signal_does_nothing(quick: None) -> None:
    with limited():
        pass
    time.sleep(0.3)
    signal.raise_signal(signal.SIGALRM)


def test_without_an_alarm_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(alarm.VARIABLE, "0.1")
    assert alarm.installed() is None
    with limited():
        time.sleep(0.5)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_the_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(alarm.VARIABLE, value)
    with pytest.raises(ConfigError, match=alarm.VARIABLE):
        alarm.allowed_seconds()
