"""Gives a new engine process the requests of the dead one: the accused alone, then all that are sure, then those in doubt in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from engine.journal import Entry

#: Most seconds for one request on trial, and for all trials together while requests that are new wait.
_TRIAL_SECONDS = 20.0
_HOLD_SECONDS = 30.0
#: Seconds between two looks at a trial.
_LOOK = 0.005


class Trials:
    """``holding``: new requests have to wait, so that the one on trial is the only one that is not proven."""

    def __init__(self, entries: dict[str, Entry], submit: Callable[[Entry], None], interrupted: Callable[[], bool]) -> None:
        self._entries = entries
        self._submit = submit
        self._interrupted = interrupted
        self._until = 0.0
        self.holding = False

    async def run(self) -> None:
        """Submit every entry that the engine does not have; ends early when it is interrupted."""
        doubtful = sorted((entry for entry in self._entries.values() if entry.doubtful), key=lambda entry: entry.deaths)
        self.holding = bool(doubtful)
        self._until = time.monotonic() + _HOLD_SECONDS
        for entry in doubtful:
            if entry.deaths:
                await self._try(entry)
        sure = [entry for entry in self._entries.values() if not entry.sent and not entry.doubtful]
        for entry in sure:
            self._send(entry)
        if any(not entry.sent for entry in doubtful):
            await self._prove(sure)
        for entry in doubtful:
            await self._try(entry)
        self._release()

    async def _try(self, entry: Entry) -> None:
        """Let the engine have this one, and nothing new, until it is proven."""
        if not entry.sent:
            self._send(entry)
            await self._prove([entry])
            if time.monotonic() > self._until:
                self._release()

    async def _prove(self, entries: Iterable[Entry]) -> None:
        end = time.monotonic() + _TRIAL_SECONDS
        for entry in entries:
            while not entry.proven.is_set() and not self._interrupted() and time.monotonic() < end:
                await asyncio.sleep(_LOOK)

    def _send(self, entry: Entry) -> None:
        if not self._interrupted() and entry.request.id in self._entries and not entry.sent:
            self._submit(entry)

    def _release(self) -> None:
        """Requests that came meanwhile wait no longer."""
        self.holding = False
        for entry in list(self._entries.values()):
            if not entry.doubtful:
                self._send(entry)
