"""Which layers a quantization method leaves alone, and how parts of a fused layer may differ. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TypeVar

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, WeightFormat

Key = TypeVar("Key")


def parts_of(layer: LinearShape) -> tuple[str, ...]:
    """The layer's names in the checkpoint: its parts where it is fused from several, else its own."""
    return layer.parts or (layer.name,)


def format_of(
    layer: LinearShape, choose: Callable[[str], Key | None], build: Callable[[Key], WeightFormat]
) -> WeightFormat | PartFormats | None:  # fmt: skip
    """A layer's format where each of its names is read by itself: ``choose`` gives what decides, None for a name that is not quantized.

    Parts of a fused layer that differ get a format each.
    """
    keys = [choose(name) for name in parts_of(layer)]
    if all(key == keys[0] for key in keys):
        return None if keys[0] is None else build(keys[0])
    return PartFormats(tuple(None if key is None else build(key) for key in keys))


def component(names: Iterable[str]) -> Callable[[str], bool]:
    """A name that is listed, lies below a listed one, or has a listed one as a run of its components (``lm_head``, ``mlp.gate``)."""
    known = tuple(names)
    return lambda name: any(f".{each}." in f".{name}." for each in known)


def wildcard(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A name, or one that it lies below, that a pattern of ``*`` and ``?`` matches; ``re:`` starts a regular expression."""
    known = tuple(patterns)
    return lambda name: any(matches_pattern(name, each) for each in known)


def matches_pattern(name: str, pattern: str) -> bool:
    """Whether a pattern covers a name; a pattern without wildcards also covers what lies below it."""
    if pattern.startswith("re:"):
        return regex(pattern).match(name) is not None
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") or fnmatchcase(name, f"{pattern}.*")


def regex(pattern: str) -> re.Pattern[str]:
    """The expression behind ``re:``. Raises :class:`engine.errors.ModelFileError` for one that is none."""
    try:
        return re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise ModelFileError(
            f"config.json: quantization_config has the pattern {pattern!r}, which is no regular expression: {error}."
        ) from error


def listed(reader: ConfigReader, key: str) -> list[str]:
    """A list of strings; absent: none."""
    value = reader.values.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise reader.complaint(key, value, "a list of names")
    return value
