"""Recognising a format by what stands in a chat template and vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import Use

#: (parser, texts of which all must be there, texts of which none may).
Row = tuple[str, tuple[str, ...], tuple[str, ...]]


def choose(rows: Sequence[Row], template: str, tokens: frozenset[str]) -> Use | None:
    """The first row that fits: each text must stand in the template or, where it does not, be a token of the vocabulary."""
    for name, needed, excluded in rows:
        places = [_place(text, template, tokens) for text in needed]
        if all(places) and not any(_place(text, template, tokens) for text in excluded):
            found = " and ".join(f"{text} in {place}" for text, place in zip(needed, places, strict=True))
            return Use(name, f"recognised by {found}")
    return None


def _place(text: str, template: str, tokens: frozenset[str]) -> str:
    if text in template:
        return "the chat template"
    return "the vocabulary" if text in tokens else ""
