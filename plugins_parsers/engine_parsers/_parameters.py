"""Arguments that a model writes one by one, put together as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

_WORDS = {"true": True, "false": False, "null": None, "none": None}


class Arguments:
    """The arguments of one call as JSON text, given out as they come. ``write`` receives the pieces."""

    def __init__(self, write: Callable[[str], None], schema: dict[str, Any]) -> None:
        """``schema``: of the tool's parameters; values are read as it says."""
        self._write = write
        self._properties = schema.get("properties")
        self._count = 0
        self._held: list[str] = []
        self._streams = False
        self._shown = False
        self._plain = False
        self._key = ""

    def add(self, key: str, value: Any) -> None:
        """A complete argument."""
        self._write(self._before(key) + dumps(value))

    def open(self, key: str, *, as_string: bool | None = None) -> None:
        """An argument begins whose text follows. ``as_string``: the model says itself whether it is a string or JSON."""
        self._key = key
        self._held = []
        self._shown = False
        self._plain = as_string is False
        self._streams = types_of(self._schema(key)) == {"string"} if as_string is None else as_string

    def text(self, piece: str) -> None:
        """A piece of the open argument's text; what can only be a string is given out at once."""
        if not piece:
            return
        if self._streams:
            self._write(self._quote() + _escaped(piece))
        else:
            self._held.append(piece)

    def close(self) -> None:
        """The open argument is complete."""
        if self._streams:
            self._write(self._quote() + '"')
        else:
            self.add(self._key, read_value("".join(self._held), None if self._plain else self._schema(self._key)))
        self._key = ""
        self._held = []

    def cut(self) -> None:
        """The text ended inside the open argument: what is there of it, unfinished."""
        if not self._streams and self._held:
            self._write(self._before(self._key) + "".join(self._held))
            self._held = []

    def end(self) -> None:
        """The call is complete."""
        self._write("}" if self._count else "{}")

    def name_of(self, position: int) -> str:
        """The name of an argument given by position."""
        names = list(self._properties) if isinstance(self._properties, dict) else []
        return names[position] if position < len(names) else f"argument{position + 1}"

    def _quote(self) -> str:
        if self._shown:
            return ""
        self._shown = True
        return self._before(self._key) + '"'

    def _before(self, key: str) -> str:
        self._count += 1
        return ("{" if self._count == 1 else ", ") + dumps(key) + ": "

    def _schema(self, key: str) -> Any:
        return self._properties.get(key) if isinstance(self._properties, dict) else None


def schema_of(tools: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The parameters' schema of the tool of that name; empty where there is none."""
    for tool in tools:
        if tool["function"]["name"] == name:
            found = tool["function"].get("parameters")
            return found if isinstance(found, dict) else {}
    return {}


def types_of(schema: Any) -> set[str]:
    """The JSON types that a schema names at its top; empty where it leaves them open."""
    if not isinstance(schema, dict):
        return set()
    stated = schema.get("type")
    if isinstance(stated, str):
        return {stated}
    if isinstance(stated, list):
        return {kind for kind in stated if isinstance(kind, str)}
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            parts = [types_of(part) for part in schema[word]]
            return set().union(*parts) if all(parts) else set()
    values = schema.get("enum")
    return {"string"} if isinstance(values, list) and values and all(isinstance(value, str) for value in values) else set()


def read_value(text: str, schema: Any) -> Any:
    """The value that a model wrote as bare text: a string where the schema wants one, else JSON where it is that."""
    types = types_of(schema)
    stripped = text.strip()
    if "string" in types:
        return None if "null" in types and stripped.lower() in ("null", "none") else text
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    try:
        return json.loads(stripped, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def dumps(value: Any) -> str:
    """JSON text; lone surrogates are escaped, since no UTF-8 holds them."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() or _encodable(text) else json.dumps(value, allow_nan=False)


def _escaped(piece: str) -> str:
    return dumps(piece)[1:-1]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(word: str) -> Any:
    raise ValueError(word)
