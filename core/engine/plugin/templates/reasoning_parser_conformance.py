"""Holds the reasoning parser to its contract, with outputs in its format."""

from __future__ import annotations

from engine.plugin.testing import ReasoningParserContract


class TestExample(ReasoningParserContract):
    name = "example"
    outputs = ("[plan]add them[/plan]It is 7.", "[plan]never closed", "no plan", "[pl", "[plan][/pla[/plan]x", "a[plan]b[/plan]c[plan]d")
    examples = {"[plan]add them[/plan]It is 7.": ("add them", "It is 7."), "[plan]cut": ("cut", ""), "plain [plan": ("", "plain [plan")}
