"""Which plugins are installed: entry points read from the installed metadata, without importing anything heavy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_PREFIX = "engine."


class Entry(NamedTuple):
    """One installed plugin. ``module`` is the entry point's value, ``distribution`` is "name version"."""

    kind: str
    name: str
    module: str
    distribution: str


def scan(path: Sequence[str] | None = None) -> list[Entry]:
    """Every entry point of an ``engine.<kind>`` group on ``path`` (default ``sys.path``), sorted; nothing is imported.

    Reads what :mod:`importlib.metadata` reads (of two distributions of one name the first on the path counts), without
    that module's import and parsing costs, because ``engine --help`` needs the names.
    """
    entries: list[Entry] = []
    seen: set[str] = set()
    for place in sys.path if path is None else path:
        for stem, metadata, text in _distributions(place or "."):
            key = re.sub(r"[-_.]+", "_", stem).lower()
            if key in seen:
                continue
            seen.add(key)
            if _PREFIX in text:
                entries += _entries(text, _distribution(metadata, stem))
    return sorted(entries)


def _distributions(place: str) -> Iterator[tuple[str, str, str]]:
    """(name as the directory spells it, directory of the metadata or its text, text of entry_points.txt)."""
    if os.path.isfile(place):
        yield from _archived(place)
        return
    try:
        names = os.listdir(place)
    except OSError:  # as Python itself does with what is no directory on its path
        return
    for name in names:
        if not name.lower().endswith((".dist-info", ".egg-info")):
            continue
        directory = os.path.join(place, name)
        try:
            with open(os.path.join(directory, "entry_points.txt"), encoding="utf-8") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            text = ""
        yield name.rpartition(".")[0].partition("-")[0], directory, text


def _archived(place: str) -> Iterator[tuple[str, str, str]]:
    """The same for a zip file or egg on the path, which is rare enough to leave to the standard library."""
    from importlib.metadata import distributions

    for found in distributions(path=[place]):
        name = found.metadata["Name"]
        yield name, f"Name: {name}\nVersion: {found.version}\n", found.read_text("entry_points.txt") or ""


def _distribution(metadata: str, stem: str) -> str:
    """ "name version" from a metadata directory (or from the text of its headers)."""
    text = metadata
    for file in ("METADATA", "PKG-INFO"):
        candidate = os.path.join(metadata, file)
        if os.path.isfile(candidate):
            with open(candidate, encoding="utf-8") as opened:
                text = opened.read(65536)
            break
    headers = text.partition("\n\n")[0]
    name = re.search(r"^Name:\s*(.+)$", headers, re.MULTILINE)
    version = re.search(r"^Version:\s*(.+)$", headers, re.MULTILINE)
    return f"{name[1].strip() if name else stem} {version[1].strip() if version else '(no version)'}"


def _entries(text: str, distribution: str) -> Iterator[Entry]:
    """The plugin entry points of one entry_points.txt."""
    for group, name, value in _pairs(text.splitlines()):
        if group.startswith(_PREFIX):
            yield Entry(group.removeprefix(_PREFIX), name, re.sub(r"\s*\[.*\]$", "", value), distribution)


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    group = ""
    for line in map(str.strip, lines):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1]
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if equals:
                yield group, name.strip(), value.strip()
