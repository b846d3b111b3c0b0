"""A logits processor whose argument ``fault`` says what goes wrong."""

from __future__ import annotations

import os
import sys

from engine.plugin import LogitsProcessor, hookimpl

ENGINE_API = 1


def raises(logits):
    raise ValueError("a bug")


def writes(logits):
    logits[3] = float("nan")
    return logits


def loops(logits):
    while True:
        pass


def goes_on(logits):
    while True:
        try:
            loops(logits)
        except Exception:  # noqa: BLE001 - this is the fault
            continue


FAULTS = {
    "raises": raises, "exits": lambda logits: sys.exit(3), "returns None": lambda logits: None,
    "returns another shape": lambda logits: logits[:7], "returns NaN": lambda logits: logits * float("nan"),
    "writes NaN in place": writes, "returns infinity": lambda logits: logits + float("inf"), "loops": loops,
    "catches what stops it": goes_on, "ends the process": lambda logits: os._exit(9),
}  # fmt: skip


class Chaos(LogitsProcessor):
    def validate(self, arguments):
        if arguments.get("fault") == "validate raises":
            raise KeyError("no such table")
        return "fault must be a text" if not isinstance(arguments.get("fault", ""), str) else None

    def begin(self, arguments):
        if arguments.get("fault") == "begin raises":
            raise ZeroDivisionError("division by zero")
        return self

    def apply(self, logits, prompt, output, arguments):
        fault = FAULTS.get(arguments.get("fault")) if len(output) >= 2 else None
        return logits if fault is None else fault(logits)


@hookimpl
def engine_create_logits_processor():
    return Chaos()
