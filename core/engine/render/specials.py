"""Keeps the text of special tokens in what users write from becoming special tokens.

Before rendering, each special token's text inside a user's strings is replaced by one private-use character that occurs nowhere else in
them; templates move such characters about like any other. After rendering, the stretch between two real special tokens that holds such a
character is encoded as ordinary text, with the character turned back. Everything else is encoded as usual.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

_PRIVATE = (0xF0000, 0x10FFFD)


class Piece(msgspec.Struct, frozen=True):
    """A stretch of rendered text; ``special``: special-token texts in it are tokens."""

    text: str
    special: bool


class SpecialTexts:
    """The special tokens of a tokenizer, as they would appear in text."""

    def __init__(self, texts: Iterable[str]) -> None:
        """``texts``: the special tokens' spellings; empty ones are left out."""
        self._texts = sorted({text for text in texts if text}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._texts))) if self._texts else None

    def found(self, text: str) -> bool:
        """Whether a special token's text is in ``text``."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def hide(self, value: Any) -> tuple[Any, dict[str, str]]:
        """A copy of a JSON value whose strings hold no special token's text, and what each stand-in character stands for."""
        pattern = self._pattern
        strings = list(_strings(value))
        if pattern is None or not any(pattern.search(text) for text in strings):
            return value, {}
        taken = {character for text in strings for character in text if ord(character) >= _PRIVATE[0]}
        free = (chr(code) for code in range(*_PRIVATE) if chr(code) not in taken)
        stand_ins: dict[str, str] = {}

        def stand_in(match: re.Match[str]) -> str:
            if match[0] not in stand_ins:
                stand_ins[match[0]] = next(free)
            return stand_ins[match[0]]

        hidden = _mapped(value, lambda text: pattern.sub(stand_in, text))
        return hidden, {character: text for text, character in stand_ins.items()}

    def pieces(self, rendered: str, stand_ins: dict[str, str]) -> list[Piece]:
        """Rendered text in the pieces to encode, in order."""
        if not stand_ins or not any(character in rendered for character in stand_ins):
            return [Piece(rendered, True)]
        edges = [0]
        for match in self._pattern.finditer(rendered) if self._pattern else ():
            edges += match.span()
        edges.append(len(rendered))
        pieces: list[Piece] = []
        for start, end in itertools.pairwise(edges):
            text = rendered[start:end]
            hidden = any(character in text for character in stand_ins)
            if hidden:
                pieces.append(Piece(shown(text, stand_ins), False))
            elif text and pieces and pieces[-1].special:
                pieces[-1] = Piece(pieces[-1].text + text, True)
            elif text:
                pieces.append(Piece(text, True))
        return pieces


def shown(text: str, stand_ins: dict[str, str]) -> str:
    """``text`` with the stand-ins turned back."""
    for character, special in stand_ins.items():
        text = text.replace(character, special)
    return text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return value
