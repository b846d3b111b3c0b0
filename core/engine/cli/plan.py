"""``engine plan``: what would run and what it would take, without running it."""

from __future__ import annotations

import json
import sys

from engine.args.flag import Flag
from engine.cli.start import Command

COMMAND = Command(
    "plan", "engine plan MODEL [the flags of engine serve] [--json]",
    "Show the chosen plugins, the memory and what would be refused, from headers alone.",
    own=(Flag("--json", "flag", False, "Print the plan as JSON."),), http=True,
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Print the plan; the status is what ``engine serve`` would end with (0 where it would serve)."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    from engine.cli.ending import report_failure
    from engine.report import examine, render

    found, error = examine(line.args)
    print(json.dumps(found, indent=2) if line.own["json"] else render(found))
    if error is None:
        return 0
    sys.stdout.flush()
    report_failure("plan", error)
    return error.status
