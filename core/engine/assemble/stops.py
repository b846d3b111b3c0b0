"""Stop strings in a growing text."""

from __future__ import annotations

import msgspec


class StopMatch(msgspec.Struct, frozen=True):
    """Text to show (already cut) and, where one was found, the stop string that ended the output."""

    text: str
    stop: str | None = None


class StopStrings:
    """Finds the first stop string to be completed, and holds back text that may be the beginning of one."""

    def __init__(self, stops: tuple[str, ...], *, include: bool = False) -> None:
        """``include``: the stop string itself stays in the output."""
        self._stops = stops
        self._include = include
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    def push(self, text: str, *, check: bool = True) -> StopMatch:
        """Text that became certain. ``check`` False: nothing in it may stop the output (min_tokens), not even in part."""
        if not self._stops:
            return StopMatch(text)
        if not check:
            shown, self._held = self._held + text, ""
            return StopMatch(shown)
        whole = self._held + text
        found = self._earliest(whole)
        if found is not None:
            end, stop = found
            self._held = ""
            return StopMatch(whole[: end if self._include else end - len(stop)], stop)
        keep = self._partial(whole)
        shown, self._held = whole[: len(whole) - keep], whole[len(whole) - keep :]
        return StopMatch(shown)

    def finish(self) -> str:
        """What was held back, when the output ended for another reason."""
        held, self._held = self._held, ""
        return held

    def _earliest(self, text: str) -> tuple[int, str] | None:
        """The stop string whose first occurrence ends first (the longer of two that end together)."""
        best: tuple[int, str] | None = None
        for stop in self._stops:
            at = text.find(stop)
            if at >= 0:
                end = at + len(stop)
                if best is None or (end, -len(stop)) < (best[0], -len(best[1])):
                    best = (end, stop)
        return best

    def _partial(self, text: str) -> int:
        """Length of the longest end of ``text`` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
