"""What the benchmarks share: checks of their own flags, and how results leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.args.flag import Flag
from engine.errors import ConfigError

FLAGS = (
    Flag("--json", "flag", False, "Print the results as JSON."),
    Flag("--output", "text", None, "Write the results as JSON to a file too.", metavar="FILE"),
)
#: Flags that may be 0.
_FROM_ZERO = ("num_iters_warmup", "warmup", "shared_prefix")
_ANY = ("prompt_seed",)


def check_counts(own: Mapping[str, Any]) -> None:
    """Counts and lengths are positive. Raises ConfigError."""
    for name, value in own.items():
        least = 0 if name in _FROM_ZERO else 1
        if isinstance(value, int) and not isinstance(value, bool) and name not in _ANY and value < least:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} {value}: must be at least {least}.", fix=f"{flag} {least}")
    if own.get("shared_prefix", 0) >= own.get("input_len", 1) > 0:
        raise ConfigError(
            f"--shared-prefix {own['shared_prefix']}: --input-len {own['input_len']} leaves no token of a prompt's own.",
            fix=f"--shared-prefix {own['input_len'] - 1}",
        )


def deliver(result: Mapping[str, Any], text: str, own: Mapping[str, Any]) -> None:
    """Print the result, as text or as JSON, and write the file that was asked for."""
    encoded = json.dumps(result, indent=2)
    if own["output"]:
        try:
            Path(own["output"]).write_text(encoded + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {own['output']}: cannot be written: {error.strerror}.", fix="another file") from error
    print(encoded if own["json"] else text)
