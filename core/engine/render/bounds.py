"""Size limits of what a chat template may make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import jinja2

#: Longest text (characters) that a template may make; lists count their texts.
MAX_LENGTH = 16 * 2**20
#: Most elements of a structure that a template may make or show.
MAX_ELEMENTS = 1_000_000
#: Largest width or count that a template may ask of a method or filter.
MAX_WIDTH = 10_000

_LONG_WIDTH = re.compile(r"%[^a-zA-Z%]*(\d{5}|\*)|:[^}]*(\d{5}|\{)")


class TemplateLimit(jinja2.TemplateRuntimeError):
    """A template took too long or made something too large."""


def result(value: Any) -> Any:
    """``value``, unless it is a text or structure that is too large."""
    measure(value)
    return value


def measure(value: Any) -> int:
    """Characters of the texts in a value; refuses one that is too large."""
    if isinstance(value, str):
        if len(value) > MAX_LENGTH:
            raise TemplateLimit("the chat template makes a text that is too long")
        return len(value)
    if isinstance(value, int) and value.bit_length() > 4096:
        raise TemplateLimit("a number in the chat template is too large")
    return _measure_structure(value) if isinstance(value, (list, tuple, dict, set)) else 0


def _measure_structure(value: Any) -> int:
    length = elements = 0
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        elements += 1
        if isinstance(item, str):
            length += len(item)
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            pending.extend(item)
        if length > MAX_LENGTH or elements + len(pending) > MAX_ELEMENTS:
            raise TemplateLimit("the chat template makes a list that is too long")
    return length + elements


def operation(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large."""
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * max(right, 0) > 4096:
            raise TemplateLimit("a power in the chat template is too large")
    elif operator == "*":
        for many, count in ((left, right), (right, left)):
            if isinstance(count, int) and hasattr(many, "__len__") and len(many) * count > MAX_ELEMENTS:
                raise TemplateLimit("a product in the chat template is too long")
    elif operator == "%" and isinstance(left, str):
        format_text(left)
        result(right)


def format_text(template: str) -> None:
    """Refuse a format with a large (or variable) width."""
    if _LONG_WIDTH.search(template):
        raise TemplateLimit("a width in a format of the chat template is too large")


def method(called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a call of a text's or number's method whose result would be too large."""
    owner = getattr(called, "__self__", None)
    if not isinstance(owner, (str, bytes, int)):
        return
    widths((*args, *kwargs.values()))
    if isinstance(owner, str):
        name = called.__name__
        if name == "replace" and len(args) >= 2:
            replacement(owner, str(args[0]), str(args[1]))
        elif name == "join" and args:
            separator((args[0], owner), {})
        elif name in ("format", "format_map"):
            format_text(owner)
            for value in (*args, *kwargs.values()):
                result(value)


def widths(values: Iterable[Any]) -> None:
    """Refuse large plain numbers."""
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_WIDTH:
            raise TemplateLimit(f"a width or count in the chat template is above {MAX_WIDTH}")


def replacement(text: str, old: str, new: str) -> None:
    """Refuse a replacement that would make a long text."""
    if (len(text) + 1) * len(new) > MAX_LENGTH and text.count(old) * len(new) + len(text) > MAX_LENGTH:
        raise TemplateLimit("a replacement in the chat template is too long")


def separator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a join whose separators alone would be too long."""
    texts = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
    lists = [value for value in args if isinstance(value, (list, tuple, dict, str))]
    longest = max((len(text) for text in texts), default=0)
    many = max((len(items) for items in lists if not isinstance(items, str)), default=0)
    if longest * many > MAX_LENGTH:
        raise TemplateLimit("a joined text in the chat template is too long")
