"""How an engine process died: by a fault of its own, or by what somebody did to it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

from engine.errors import EngineError

#: Signals that a process gets from others alone. SIGKILL is one of them unless the kernel was short of memory.
_FROM_OTHERS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})


class Death(NamedTuple):
    """``own``: the process crashed, ended itself or froze at work, or the kernel killed it for its memory. ``at``: when it last worked
    (monotonic seconds). ``at_work``: the unproven requests that it worked for then."""

    error: EngineError
    own: bool
    at: float
    at_work: frozenset[str]


def own_doing(code: int, kernel_kills_before: int | None) -> bool:
    """Whether a process with this exit status (negative: a signal's number) ended by a fault of its own.

    ``kernel_kills_before``: :func:`kernel_kills` when it began.
    """
    if code == -signal.SIGKILL:
        now = kernel_kills()
        return now is None or kernel_kills_before is None or now > kernel_kills_before
    return -code not in _FROM_OTHERS


def kernel_kills() -> int | None:
    """Processes that Linux has killed for want of memory since it booted; None where nobody counts them."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def stopped(pid: int) -> bool:
    """Whether somebody has stopped the process (SIGSTOP, a debugger); False where this cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The name before the state may hold anything, also spaces and parentheses.
    return stat.rpartition(")")[2].split()[0] in ("T", "t")
