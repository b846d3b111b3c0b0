"""Ties a process to the one that started it."""

from __future__ import annotations

import signal
import sys


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends; elsewhere the closed socket ends it.

    SIGKILL, because a stopped process takes no other signal: it would stay, with its memory, until somebody continues it.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def ignore_ends() -> None:
    """Let pass what asks a whole process group to end (Ctrl-C, a service's stop): the process that started this one decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
