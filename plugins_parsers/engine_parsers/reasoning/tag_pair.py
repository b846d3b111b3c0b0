"""Any pair of tags: options start, end (texts), always (all is reasoning until end), trim (line breaks beside them go)."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    start: str = "<think>"
    end: str = "</think>"
    always: bool = False
    trim: bool = True


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer, options: Options | None) -> ReasoningParser:
    wanted = options or Options()
    if not wanted.start or not wanted.end or wanted.start == wanted.end:
        raise ConfigError(
            f"--reasoning-parser tag_pair: start {wanted.start!r} and end {wanted.end!r} must be two different texts.",
            fix='--reasoning-parser \'tag_pair:{"start": "<think>", "end": "</think>"}\'',
        )
    return TagPairParser(tokenizer, (wanted.start,), (wanted.end,), always=wanted.always, trim=wanted.trim)
