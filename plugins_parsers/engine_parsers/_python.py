"""Python calls and literals, read without evaluating anything."""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 100
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_PLAIN = re.compile(r"[^\\'\"\n]+")
_ESCAPES = {
    "\n": "", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "/": "/",
}  # fmt: skip
_HEX = {"x": 2, "u": 4, "U": 8}
_CLOSERS = {"[": "]", "(": ")", "{": "}"}


class NoLiteral(Exception):
    """The text is no literal that has a JSON value."""


def read_literal(text: str) -> Any:
    """The value of a whole literal: numbers, strings, True, False, None, lists, tuples, dicts with text keys. Raises NoLiteral."""
    value, at = _value(text, _skip(text, 0), 0)
    if _skip(text, at) != len(text):
        raise NoLiteral
    return value


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH or at >= len(text):
        raise NoLiteral
    mark = text[at]
    if mark in "'\"":
        return _string(text, at)
    if mark in "[(":
        return _list(text, at, depth)
    if mark == "{":
        return _dict(text, at, depth)
    word = _WORD.match(text, at)
    if word:
        if word[0] not in _WORDS:
            raise NoLiteral
        return _WORDS[word[0]], word.end()
    return _number(text, at)


def _number(text: str, at: int) -> tuple[Any, int]:
    match = _NUMBER.match(text, at)
    if match is None:
        raise NoLiteral
    digits = match[0].replace("_", "")
    try:
        value = int(digits) if digits.lstrip("+-").isdecimal() else float(digits)
    except ValueError as error:
        raise NoLiteral from error
    if value in (float("inf"), float("-inf")):
        raise NoLiteral
    return value, match.end()


def _string(text: str, at: int) -> tuple[str, int]:
    """One string, or several that stand beside each other."""
    parts: list[str] = []
    while at < len(text) and text[at] in "'\"":
        at = _one_string(text, at, parts)
        following = _skip(text, at)
        if following == len(text) or text[following] not in "'\"":
            break
        at = following
    return "".join(parts), at


def _one_string(text: str, at: int, parts: list[str]) -> int:
    quote = text[at]
    at += len(quote)
    while at < len(text):
        if text.startswith(quote, at):
            return at + len(quote)
        plain = _PLAIN.match(text, at)
        if plain:
            parts.append(plain[0])
            at = plain.end()
        elif text[at] == "\\":
            at = _escape(text, at + 1, parts)
        else:  # the other quote, or a line break, which models leave unescaped
            parts.append(text[at])
            at += 1
    raise NoLiteral


def _escape(text: str, at: int, parts: list[str]) -> int:
    if at >= len(text):
        raise NoLiteral
    mark = text[at]
    if mark in _ESCAPES:
        parts.append(_ESCAPES[mark])
        return at + 1
    if mark in _HEX:
        digits = text[at + 1 : at + 1 + _HEX[mark]]
        if len(digits) < _HEX[mark] or not all(digit in "0123456789abcdefABCDEF" for digit in digits) or int(digits, 16) > 0x10FFFF:
            raise NoLiteral
        parts.append(chr(int(digits, 16)))
        return at + 1 + _HEX[mark]
    parts.append("\\" + mark)
    return at + 1


def _list(text: str, at: int, depth: int) -> tuple[Any, int]:
    """A list or tuple; parentheses around one value without a comma are no tuple."""
    closer = _CLOSERS[text[at]]
    items: list[Any] = []
    comma = False
    at = _skip(text, at + 1)
    while at < len(text) and text[at] != closer:
        item, at = _value(text, at, depth + 1)
        items.append(item)
        at, comma = _comma(text, at, closer)
    if at >= len(text):
        raise NoLiteral
    alone = closer == ")" and len(items) == 1 and not comma
    return (items[0] if alone else items), at + 1


def _dict(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while at < len(text) and text[at] != "}":
        key, at = _value(text, at, depth + 1)
        at = _skip(text, at)
        if not isinstance(key, str | int | float) or isinstance(key, bool) or not text.startswith(":", at):
            raise NoLiteral
        value, at = _value(text, _skip(text, at + 1), depth + 1)
        found[str(key)] = value
        at, _ = _comma(text, at, "}")
    if at >= len(text):
        raise NoLiteral
    return found, at + 1


def _comma(text: str, at: int, closer: str) -> tuple[int, bool]:
    """Past a comma and space; without a comma the closer must come."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1), True
    if not text.startswith(closer, at):
        raise NoLiteral
    return at, False


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
