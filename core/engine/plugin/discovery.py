"""Finds entry points by reading ``entry_points.txt`` files alone: no import, no ``importlib.metadata``, a few milliseconds."""

from __future__ import annotations

import os
import sys

PREFIX = "engine."
#: Paths of plugin files that count as installed, separated like PATH; ``--plugin`` sets it for every process of an engine.
FILES_VARIABLE = "ENGINE_PLUGIN_FILES"
_SUFFIXES = (".dist-info", ".egg-info")


class Entry:
    """One registered plugin. ``distribution`` is "name version" as installed; nothing of it is imported yet."""

    __slots__ = ("distribution", "kind", "module", "name")

    def __init__(self, kind: str, name: str, module: str, distribution: str) -> None:
        self.kind = kind
        self.name = name
        self.module = module
        self.distribution = distribution

    def __repr__(self) -> str:
        return f"Entry({self.kind!r}, {self.name!r}, {self.module!r}, {self.distribution!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, str, str]:
        return (self.kind, self.name, self.module, self.distribution)


def scan(path: list[str] | None = None) -> list[Entry]:
    """Every entry point of an ``engine.<kind>`` group on ``path`` (default ``sys.path``), sorted by kind, name and distribution.

    Like ``importlib.metadata``, of two distributions with one name the first on the path counts.
    """
    entries: list[Entry] = []
    for project, version, folder in distributions(path):
        text = _read(os.path.join(folder, "entry_points.txt"))
        if text is None or f"[{PREFIX}" not in text:
            continue
        shown = f"{_declared_name(folder) or project} {version}"
        entries.extend(Entry(kind, name, module, shown) for kind, name, module in parse(text))
    if path is None:
        entries.extend(_file_entries())
    return sorted(entries, key=Entry._key)


def _file_entries() -> list[Entry]:
    paths = [each for each in os.environ.get(FILES_VARIABLE, "").split(os.pathsep) if each]
    if not paths:
        return []
    from pathlib import Path

    from engine.plugin.files import kind_of

    return [Entry(kind_of(Path(each)).name, Path(each).stem, each, f"file {each}") for each in paths]


def parse(text: str) -> list[tuple[str, str, str]]:
    """(kind, name, module) of each ``engine.*`` line of an ``entry_points.txt``; a target's attribute and extras are kept off."""
    found: list[tuple[str, str, str]] = []
    kind = ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            group = line.strip("[]").strip()
            kind = group[len(PREFIX) :] if group.startswith(PREFIX) else ""
        elif kind and "=" in line:
            name, target = (part.strip() for part in line.split("=", 1))
            found.append((kind, name, target.split("[", 1)[0].strip()))
    return found


def distributions(path: list[str] | None = None) -> list[tuple[str, str, str]]:
    """(name, version, metadata folder) of every installed distribution, as its metadata folder spells them."""
    found: dict[str, tuple[str, str, str]] = {}
    for place in dict.fromkeys(sys.path if path is None else path):
        try:
            names = os.listdir(place or ".")
        except OSError:  # zip archives and places that do not exist hold no plugins
            continue
        for name in sorted(names):
            if not name.endswith(_SUFFIXES):
                continue
            project, _, version = name.rsplit(".", 1)[0].partition("-")
            key = project.lower().replace("-", "_").replace(".", "_")
            if key in found:
                continue
            # egg-info names may go on with "-py3.11"
            found[key] = (project, version.split("-py", 1)[0], os.path.join(place, name))
    return list(found.values())


def version_of(distribution: str, path: list[str] | None = None) -> str | None:
    """The installed version of a distribution, or None where it is not installed."""
    wanted = distribution.lower().replace("-", "_").replace(".", "_")
    return next((version for name, version, _ in distributions(path) if name.lower() == wanted), None)


def _declared_name(folder: str) -> str | None:
    """The ``Name:`` field of the metadata, which keeps the dashes that folder names lose."""
    text = _read(os.path.join(folder, "METADATA")) or _read(os.path.join(folder, "PKG-INFO")) or ""
    for line in text.splitlines():
        if line.lower().startswith("name:"):
            return line[5:].strip()
        if not line:
            break
    return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None
