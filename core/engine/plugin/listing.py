"""What can be said of plugins without importing them: the first docstring line, and whether their extra is there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution, version

from engine.plugin.discovery import Entry


@dataclass(frozen=True)
class Listed:
    """One line of ``engine plugins list``. ``needs`` is the command that installs what is missing; empty when ready."""

    kind: str
    name: str
    module: str
    distribution: str
    needs: str
    about: str


def describe(entries: Iterable[Entry]) -> list[Listed]:
    """The listing, sorted by kind and name."""
    extras = lru_cache(_extras)
    rows = []
    for entry in sorted(entries, key=lambda entry: (entry.kind, entry.name)):
        project = entry.distribution.rpartition(" ")[0]
        plain = entry.name.lower().replace("_", "-")
        missing = plain in extras(project) and not _satisfied(project, extras(project)[plain])
        needs = f"pip install '{project}[{extras(project)[plain]}]'" if missing else ""
        about = first_line(entry.module)
        rows.append(Listed(entry.kind, entry.name, entry.module, entry.distribution, needs, about))
    return rows


def first_line(target: str) -> str:
    """The first line of a module's docstring, read from its source; nothing is imported. Empty where there is none."""
    source = target if target.endswith(".py") else source_file(target.partition(":")[0])
    if source is None:
        return ""
    with open(source, encoding="utf-8") as file:
        try:
            doc = ast.get_docstring(ast.parse(file.read()))
        except (SyntaxError, ValueError):
            return "(its source cannot be read)"
    return doc.strip().splitlines()[0] if doc and doc.strip() else ""


def source_file(module: str) -> str | None:
    """Where a module's source is, found through the import system's finders without importing its parents."""
    places: list[str] | None = None
    found: ModuleSpec | None = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        found = _find(".".join(parts[:count]), places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or [])
    origin = found.origin if found else None
    return origin if origin and origin.endswith(".py") else None


def _find(name: str, places: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        spec = finder.find_spec(name, places)
        if spec is not None:
            return spec
    return None


def _extras(project: str) -> dict[str, str]:
    """Extra names of a distribution, by their lower-case dashed spelling."""
    try:
        names = distribution(project).metadata.get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return {}
    return {name.lower().replace("_", "-"): name for name in names}


def _satisfied(project: str, extra: str) -> bool:
    """Whether every requirement of an extra is installed in a version that it allows."""
    from packaging.requirements import Requirement

    for line in distribution(project).requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                return False
        except PackageNotFoundError:
            return False
    return True
