"""How torch's threads behave under test: few, and asleep when they wait, so that tests pass in time on a busy machine."""

from __future__ import annotations

import os

# Read once, when torch loads its OpenMP library: hence here, before any test module is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
