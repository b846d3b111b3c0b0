"""Who ended the engine process: guilt that is proven, so that deaths which come from outside cost no request."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable

from engine.death import Death
from engine.journal import Entry

#: A request fails when it was alone in question at this many deaths, and chance would explain them with at most this probability.
_DEATHS = 2
_CHANCE = 1e-5
#: Deaths a second that come by chance where few were seen (one an hour), and how many have to be seen to count.
_USUAL = 1 / 3600
_SEEN = 2
#: The least seconds that an exposure counts for.
_SHORTEST = 0.01

log = logging.getLogger("engine.client")


class Inquest:
    """Looks at each death of the engine.

    In question is a request that the process worked for when it died by its own doing, and that had got fewer than ``PROVEN`` tokens in
    this life: one that ends engines does so as soon as it goes on, since it goes on where it ended the last one. Several in question are
    in doubt: they are tried one after the other. One alone is accused: it is tried with nothing beside it. It is guilty at the second
    such death, unless the engine dies so often for other reasons that this may be chance; then at one of the next.
    """

    def __init__(self) -> None:
        self._others: deque[float] = deque(maxlen=16)

    def hold(self, entries: Iterable[Entry], death: Death) -> list[Entry]:
        """The guilty; the suspects among the others are in doubt."""
        found = [entry for entry in entries if entry.request.id in death.at_work and not entry.proven.is_set()] if death.own else []
        if not found:
            self._others.append(death.at)
        for entry in found:
            entry.doubtful = True
        if len(found) != 1:
            return []
        (entry,) = found
        entry.deaths += 1
        entry.chance *= min(1.0, self.rate(death.at) * max(_SHORTEST, death.at - entry.since))
        log.warning("Only request %s can have ended the engine this time, its %d. time.", entry.request.id, entry.deaths)
        return found if entry.deaths >= _DEATHS and entry.chance <= _CHANCE else []

    def rate(self, now: float | None = None) -> float:
        """Deaths per second that no request can be blamed for, where they came the closest."""
        now = time.monotonic() if now is None else now
        recent = list(reversed(self._others))
        rates = [count / max(now - at, _SHORTEST) for count, at in enumerate(recent, 1) if count >= _SEEN]
        return max([_USUAL, *rates])
