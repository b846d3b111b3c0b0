"""Every plugin that the engine ships keeps its kind's contract; found by discovery, so a new one cannot be forgotten."""

from __future__ import annotations

from engine.plugin.discovery import scan
from engine.plugin.testing.suites import SUITES, suite_of
from tests.contract.builtin import SPECIAL

for _entry in scan():
    if _entry.kind in SUITES and _entry.distribution.partition(" ")[0] == "engine":
        _suite = suite_of(_entry)
        _special = SPECIAL.get((_entry.kind, _entry.name))
        if _special is not None:
            _suite = type(_suite.__name__, (_special,), {"name": _entry.name})
        globals()[_suite.__name__] = _suite
