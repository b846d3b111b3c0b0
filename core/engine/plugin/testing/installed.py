"""Collected by ``engine plugins test``: the suites of the installed plugins that ``$ENGINE_TEST_PLUGINS`` names, separated by commas."""

from __future__ import annotations

import os

from engine.plugin.discovery import scan
from engine.plugin.testing.suites import suite_of

_wanted = {tuple(each.split(":", 1)) for each in os.environ.get("ENGINE_TEST_PLUGINS", "").split(",") if ":" in each}
for _entry in scan():
    if (_entry.kind, _entry.name) in _wanted:
        _suite = suite_of(_entry)
        globals()[_suite.__name__] = _suite
