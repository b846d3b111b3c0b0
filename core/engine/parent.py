"""Ties a process to the one that started it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

#: What asks a whole process group to end: Ctrl-C, a service's stop.
_ENDS = frozenset({signal.SIGINT, signal.SIGTERM})


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends; elsewhere the closed socket ends it.

    SIGKILL, because a stopped process takes no other signal: it would stay, with its memory, until somebody continues it.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


@contextlib.contextmanager
def held_ends() -> Iterator[None]:
    """A process that is started meanwhile hears none of :func:`ignore_ends`'s signals until it calls that: its imports take a while.

    The starting thread hears them afterwards. Several may be open at the same time.
    """
    fresh = _ENDS - signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, fresh)


def ignore_ends() -> None:
    """Let pass what asks a whole process group to end (Ctrl-C, a service's stop): the process that started this one decides."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
