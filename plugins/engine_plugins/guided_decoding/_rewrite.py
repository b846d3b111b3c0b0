"""Constraints in other words: choices as a grammar or regular expression, bounded strings as patterns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

#: Keywords whose values are no schemas.
_PLAIN = ("enum", "const", "default", "examples", "required")


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
    return {key: value if key in _PLAIN else bounded(value) for key, value in schema.items()}


def with_schemas(tag: dict[str, Any], write: Callable[[Any], Any]) -> dict[str, Any]:
    """A format of structural tags whose JSON schemas are written anew, but where their values are not laid out as JSON."""
    found = dict(tag)
    if tag.get("type") == "json_schema" and tag.get("style", "json") == "json":
        found["json_schema"] = write(tag["json_schema"])
    for name in ("elements", "tags"):
        if isinstance(tag.get(name), list):
            found[name] = [with_schemas(part, write) if isinstance(part, dict) else part for part in tag[name]]
    if isinstance(tag.get("content"), dict):
        found["content"] = with_schemas(tag["content"], write)
    return found


def closed(schema: Any) -> Any:
    """The schema with objects that name properties holding no others, unless they say so: an open object never ends for a small model.

    Where branches of a schema are to hold together, they have to stay open.
    """
    return schema if _combines(schema) else _closed(schema)


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value if key in _PLAIN else _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not {"additionalProperties", "patternProperties", "minProperties"} & set(schema):
        found["additionalProperties"] = False
    return found


def _combines(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_combines, schema))
    if not isinstance(schema, dict):
        return False
    combining = [key for key in ("allOf", "anyOf", "oneOf", "$ref") if key in schema]
    several = len(combining) > 1 or len(schema.get("allOf", ())) > 1 or (combining and "properties" in schema)
    return bool(several) or any(_combines(value) for key, value in schema.items() if key not in _PLAIN)


def _literal(text: str) -> str:
    # JSON's escapes are GBNF's, but for characters beyond 16 bits, which stay as they are.
    return json.dumps(text, ensure_ascii=False)
