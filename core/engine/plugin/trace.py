"""``ENGINE_TRACE_PLUGINS=1``: a line on standard error for everything that the host does with plugins, in every process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "ENGINE_TRACE_PLUGINS"


@contextmanager
def traced(what: str, kind: str, name: str, module: str, distribution: str) -> Iterator[None]:
    """Say what was done with which plugin, and how long it took; also where it failed."""
    if os.environ.get(VARIABLE, "0") in ("", "0"):
        yield
        return
    start, state = time.perf_counter(), "failed"
    try:
        yield
        state = "done"
    finally:
        milliseconds = 1000 * (time.perf_counter() - start)
        sys.stderr.write(f"[plugins {os.getpid()}] {what} {kind} {name} ({module}, {distribution}): {state} in {milliseconds:.1f} ms\n")
