"""How much longer things may take where several processes run tests at once, each with servers of its own."""

from __future__ import annotations

import os

#: A limit in seconds is multiplied by it. Alone (``-n 0``) the limits are those that the engine is held to.
SLACK = 4.0 if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1 else 1.0
