"""How torch's threads behave under test: few, and asleep when they wait, so that tests pass in time on a busy machine."""

from __future__ import annotations

import os

# Read once, when torch loads its OpenMP library: hence here, before any test module is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where several processes run tests (pytest-xdist), one thread each: more would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
