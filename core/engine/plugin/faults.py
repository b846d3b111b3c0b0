"""Failures of plugins while requests are served: each is named, counted, and too many switch the plugin off for a while."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import msgspec

from engine.errors import EngineError, PluginFault, RequestError
from engine.plugin.alarm import PluginTimeout, installed, limited
from engine.plugin.api import Choice
from engine.plugin.blame import origin
from engine.plugin.kinds import kind

T = TypeVar("T")
#: Failures within a window that are too many, where they are also at least this share of the uses.
BUDGET, WINDOW, SHARE = 5, 60.0, 0.5
#: Seconds of the first quarantine; each that follows on the last doubles, up to the longest.
PAUSE, LONGEST_PAUSE = 60.0, 3600.0
#: Kinds that a server can do without for a while; the others are counted only.
SWITCHED_OFF = frozenset({"logits_processor", "guided_decoding", "reasoning_parser", "tool_parser", "extension"})
_ATTRIBUTED = re.compile(r"\[(\w+) ([^\]\s]+)\] ")

log = logging.getLogger("engine.plugins")


class Standing(msgspec.Struct):
    """How a plugin has done since the server's start: ``failures`` in all, the ``last`` one, and when its quarantine ends (monotonic)."""

    choice: Choice
    failures: int = 0
    last: str = ""
    since: float = 0.0
    uses: int = 0
    recent: int = 0
    until: float = 0.0
    pause: float = PAUSE


class Faults:
    """One per front end. ``clock`` gives monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alarm = installed()
        self._standings: dict[tuple[str, str], Standing] = {}

    def check(self, choice: Choice) -> None:
        """A request is about to use the plugin. Raises RequestError 503 while it is in quarantine."""
        standing = self._standing(choice)
        if (left := standing.until - self._clock()) > 0:
            raise RequestError(
                f"{origin(kind(choice.kind), choice)} is switched off after {standing.failures} failures; it is tried again in "
                f"{left:.0f} s. The last failure: {standing.last}",
                code="plugin_quarantined", http_status=503, retry_after=max(1, round(left)),
            )  # fmt: skip
        standing.uses += 1

    def record(self, choice: Choice, cause: str) -> PluginFault:
        """Count a failure; returns the error for the request that it befell."""
        standing, now = self._standing(choice), self._clock()
        fault = PluginFault(f"{origin(kind(choice.kind), choice)} failed: {cause}", plugin=choice)
        standing.failures += 1
        standing.recent += 1
        standing.last = cause
        log.error("%s", fault)
        budget = 1 if standing.until else BUDGET
        if choice.kind in SWITCHED_OFF and now >= standing.until and standing.recent >= max(budget, SHARE * standing.uses):
            standing.pause = min(2 * standing.pause, LONGEST_PAUSE) if standing.until else PAUSE
            standing.until = now + standing.pause
            standing.uses = standing.recent = 0
            log.error("%s is switched off for %.0f s.", origin(kind(choice.kind), choice), standing.pause)
        return fault

    @contextmanager
    def guarded(self, choice: Choice) -> Iterator[None]:
        """Whatever a plugin's code raises inside, or taking too long, becomes its :class:`~engine.errors.PluginFault`.

        The engine's own errors pass: a plugin raises them to say what the request has to change.
        """
        try:
            with limited(self._alarm):
                yield
        except (Exception, PluginTimeout, SystemExit) as error:  # noqa: BLE001 - raised again, as the fault that it is
            self._answer(choice, error)

    def call(self, choice: Choice, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """The function's result, guarded; the quicker way, for what is called for each token."""
        try:
            with limited(self._alarm):
                return function(*arguments, **named)
        except (Exception, PluginTimeout, SystemExit) as error:  # noqa: BLE001 - raised again, as the fault that it is
            self._answer(choice, error)

    def _answer(self, choice: Choice, error: BaseException) -> NoReturn:
        match error:
            case PluginFault() | RequestError():
                raise error
            case PluginTimeout():
                raise self.record(choice, "it took too long.") from None
            case EngineError():
                raise self.record(choice, str(error)) from error
            case _:
                raise self.record(choice, described(error)) from error

    def of_output(self, error: str, choices: Callable[[str, str], Choice]) -> PluginFault | None:
        """The failure behind an error text of the engine process, if it names a plugin. ``choices``: by kind and name."""
        found = _ATTRIBUTED.match(error)
        return self.record(choices(found[1], found[2]), error[found.end() :]) if found is not None else None

    def standings(self) -> list[dict[str, Any]]:
        """Every plugin that has failed: kind, name, distribution, failures, the last one, seconds of quarantine that are left."""
        now = self._clock()
        return [
            {
                "kind": each.choice.kind, "name": each.choice.name, "distribution": each.choice.distribution, "failures": each.failures,
                "last": each.last, "quarantined_seconds": max(0, round(each.until - now)),
            }
            for _, each in sorted(self._standings.items()) if each.failures
        ]  # fmt: skip

    def _standing(self, choice: Choice) -> Standing:
        now = self._clock()
        standing = self._standings.setdefault((choice.kind, choice.name), Standing(choice, since=now))
        if now - standing.since > WINDOW:
            standing.since, standing.uses = now, 0
            if not standing.recent and now > standing.until + WINDOW:
                standing.until, standing.pause = 0.0, PAUSE
            standing.recent = 0
        return standing


def attributed(kind_name: str, name: str, cause: str) -> str:
    """An error text of the engine process that names the plugin behind it; the front end knows its distribution."""
    return f"[{kind_name} {name}] {cause}"


def described(error: BaseException) -> str:
    """The error in one line, without places in files: clients see it."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."
