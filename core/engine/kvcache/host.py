"""Host pages that swapped-out sequences wait in (``--swap-space``)."""

from __future__ import annotations

from collections.abc import Sequence as Many


class HostPool:
    """Host pages 0 … N-1. Released pages can be given again only after :meth:`settle`.

    Workers copy out before they copy in, so a host page that a step reads must not be written by the same step.
    """

    __slots__ = ("_cooling", "_free", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size - 1, -1, -1))
        self._cooling: list[int] = []

    @property
    def free(self) -> int:
        """Pages that can be given in this step."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Pages that hold something."""
        return self.size - len(self._free) - len(self._cooling)

    def allocate(self, count: int) -> list[int]:
        """``count`` pages; more than ``free`` is a ``ValueError``."""
        if count > len(self._free):
            raise ValueError(f"{count} host pages asked, {len(self._free)} free")
        return [self._free.pop() for _ in range(count)]

    def release(self, pages: Many[int]) -> None:
        """Give pages back, for the next step."""
        self._cooling.extend(pages)

    def settle(self) -> None:
        """A new step begins."""
        self._free.extend(self._cooling)
        self._cooling.clear()

    def check(self, held: Many[int]) -> None:
        """Raise ``RuntimeError`` unless every page is held or free, exactly once."""
        if sorted([*held, *self._free, *self._cooling]) != list(range(self.size)):
            raise RuntimeError("host pool: a page is lost or given twice")
