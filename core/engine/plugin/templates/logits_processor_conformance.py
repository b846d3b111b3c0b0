"""Holds the logits processor to its contract."""

from __future__ import annotations

from engine.plugin.testing import LogitsProcessorContract


class TestExample(LogitsProcessorContract):
    name = "example"
    arguments = {"tokens": [3, 5, 99_999], "by": 2.5}
    wrong = {"tokens": "all", "by": 1}
