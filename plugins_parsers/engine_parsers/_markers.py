"""Fixed markers in a growing text, also where the text ends in the middle of one."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Markers:
    """A set of markers to look for. Immutable; searching costs time linear in the text."""

    def __init__(self, markers: Sequence[str]) -> None:
        ordered = sorted(markers, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)))
        self._beginnings = frozenset(marker[:length] for marker in markers for length in range(1, len(marker)))
        self._firsts = frozenset(marker[0] for marker in markers)
        self._longest = max(map(len, markers)) - 1

    def find(self, text: str, at: int = 0) -> tuple[int, str] | None:
        """Place and text of the first marker from ``at`` on; the longest of those that begin there."""
        match = self._pattern.search(text, at)
        return (match.start(), match[0]) if match else None

    def open_ended(self, text: str, place: int) -> bool:
        """Whether more text could make the marker at ``place`` a longer one."""
        return len(text) - place <= self._longest and text[place:] in self._beginnings

    def at(self, text: str, at: int) -> str | None:
        """The marker that begins exactly at ``at``."""
        match = self._pattern.match(text, at)
        return match[0] if match else None

    def partial(self, text: str, at: int = 0) -> int:
        """How many characters at the end of ``text[at:]`` may be the beginning of a marker."""
        longest = min(self._longest, len(text) - at)
        tail = text[len(text) - longest :]
        if self._firsts.isdisjoint(tail):
            return 0
        for length in range(longest, 0, -1):
            if tail[longest - length :] in self._beginnings:
                return length
        return 0
