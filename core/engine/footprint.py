"""What this process has cost so far: seconds by phase, and memory that can be given back."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator

#: Of glibc's malloc.h and Linux's mman.h.
_ARENA_MAX, _DONT_NEED = -8, 4


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


def forget_code() -> None:
    """Let go of the libraries' pages that nothing has written to: what is still needed comes back from the page cache within microseconds,
    what only the start ran does not (of torch 45 MiB). Where the system does not tell the way Linux does, nothing happens."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        for start, nbytes in _code():
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(nbytes), _DONT_NEED)


def _code() -> list[tuple[int, int]]:
    """Address and size of the libraries' mappings that cannot be written to and hold nothing but the file's own bytes."""
    found: list[tuple[int, int]] = []
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
        place: tuple[int, int] | None = None
        for line in smaps:
            words = line.split()
            if not words[0].endswith(":"):
                start, _, end = words[0].partition("-")
                code = len(words) > 5 and words[1] in ("r-xp", "r--p") and ".so" in words[5]
                place = (int(start, 16), int(end, 16) - int(start, 16)) if code else None
            elif words[0] == "Anonymous:" and words[1] == "0" and place is not None:
                found.append(place)
    return found


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
    """All that lives now is permanent; garbage, free memory and code that has run are given back. To be called where no library is
    unloaded at the same time."""
    gc.collect()
    gc.freeze()
    trim()
    forget_code()


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
