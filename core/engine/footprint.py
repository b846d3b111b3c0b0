"""What this process has cost so far: seconds by phase, and memory that can be given back."""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import sys
import time
from collections.abc import Iterator

from engine import code_pages

#: Of glibc's malloc.h.
_ARENA_MAX = -8
#: Bytes of libraries that steps alone bring into memory, about. What comes back at the next takes less than can be measured.
_IN_USE = 16 * 2**20


def age() -> float:
    """Seconds since this process was started, to a hundredth; 0.0 where the system does not tell it the way Linux does."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
            # The name in parentheses may hold anything; the fields after it start with the third.
            started = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def trim() -> None:
    """Give memory that is free inside the allocator back to the system (glibc; elsewhere nothing happens).

    Parsing a tokenizer or packing weights leaves tens of MiB there that are never needed again.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def one_arena() -> None:
    """Threads that begin from now on share the allocator's first arena (glibc): :func:`trim` cannot give back the end of the others, where
    parsing a tokenizer on a thread leaves 16 MiB."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def rest() -> None:
    """Give back what past work left. Libraries' code is let go where there is so much that it cannot all be in use."""
    trim()
    if code_pages.resident() > _IN_USE:
        code_pages.forget()


@contextlib.contextmanager
def unswept() -> Iterator[None]:
    """What is created meanwhile counts as permanent: Python looks for no garbage among it, now or later.

    For imports: collections take a sixth of the time in which torch is imported, and each full one of a later server would stop
    it for 80 ms.
    """
    active = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if active:
            gc.enable()


def settle() -> None:
    """All that lives now is permanent; garbage, sources that were read for their signatures, free memory and code that has run are
    given back."""
    linecache.clearcache()
    gc.collect()
    gc.freeze()
    trim()
    code_pages.forget()


class Phases:
    """Seconds per phase, in the order of their ends; each begins where the one before ended, the first ``before`` seconds ago."""

    def __init__(self, before: float = 0.0) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic() - before

    def end(self, phase: str) -> None:
        """The phase ends now; phases of one name add up."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now
