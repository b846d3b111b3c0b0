"""Constraints in other words: choices as a grammar or regular expression, bounded strings as patterns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any


def choice_grammar(choices: Sequence[str]) -> str:
    """GBNF whose sentences are exactly the texts."""
    return "root ::= " + " | ".join(map(_literal, choices))


def choice_regex(choices: Sequence[str]) -> str:
    """A regular expression that matches exactly the texts."""
    return "(" + "|".join(re.sub(r"([^\w\s])", r"\\\1", choice) for choice in choices) + ")"


def bounded(schema: Any) -> Any:
    """The schema with lengths of strings written as patterns: the library's own bounded strings may hold control characters."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    keys = set(schema)
    if schema.get("type") == "string" and {"minLength", "maxLength"} & keys and not {"pattern", "format", "enum", "const"} & keys:
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        rest = {key: value for key, value in schema.items() if key not in ("minLength", "maxLength")}
        return rest | {"pattern": f"^.{{{least},{'' if most is None else int(most)}}}$"}
    return {key: value if key in ("enum", "const", "default", "examples") else bounded(value) for key, value in schema.items()}


def _literal(text: str) -> str:
    # JSON's escapes are GBNF's, but for characters beyond 16 bits, which stay as they are.
    return json.dumps(text, ensure_ascii=False)
