"""Formats of strings as patterns, where the libraries' own let texts through that validators refuse: 30 February, 01.2.3.4."""

from __future__ import annotations

from typing import Any

_YEAR = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PATTERNS = {"date": _DATE, "time": _TIME, "date-time": f"{_DATE}T{_TIME}", "ipv4": rf"({_OCTET}\.){{3}}{_OCTET}"}
#: Keywords beside which a format stays one; and those whose values are no schemas.
_BESIDE = {"pattern", "minLength", "maxLength", "enum", "const"}
_PLAIN = ("enum", "const", "default", "examples", "required")


def spelled(schema: Any) -> Any:
    """The schema with those formats written as patterns."""
    if isinstance(schema, list):
        return [spelled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("format")
    if schema.get("type") == "string" and isinstance(name, str) and name in _PATTERNS and not _BESIDE & set(schema):
        rest = {key: value for key, value in schema.items() if key != "format"}
        return rest | {"pattern": f"^{_PATTERNS[name]}$"}
    return {key: value if key in _PLAIN else spelled(value) for key, value in schema.items()}
