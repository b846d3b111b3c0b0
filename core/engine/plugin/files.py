"""Plugins from single Python files: ``--plugin FILE`` for trying one out, and flags that take a file's path."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.plugin.api import Choice
from engine.plugin.blame import blamed
from engine.plugin.discovery import FILES_VARIABLE, Entry
from engine.plugin.kinds import EXTENSION, EXTENSION_HOOKS, KINDS, Kind


def file_plugin(kind: Kind[Any], path: str, flag: str) -> Entry:
    """Import a plugin module from a file; its name is the file's without ``.py``. Every process can import it again by its path.

    Raises ConfigError where there is no such file, and the :class:`engine.errors.PluginError` of whatever its import does.
    """
    place = _existing(path, flag)
    entry = Entry(kind.name, place.stem, str(place), f"file {place}")
    choice = Choice(kind.name, entry.name, entry.module, entry.distribution, entry.name)
    with blamed(kind, choice):
        import_file(entry.module)
    return entry


def import_file(path: str) -> Any:
    """The module in a file, imported once per process."""
    name = f"engine_file_{Path(path).stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Python cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def add_files(paths: list[str]) -> None:
    """Make plugin files some of the installed plugins, in this process and in those that it starts.

    Raises ConfigError for a file that is not there, cannot be read, or implements no kind's hook.
    """
    places = [_existing(path, "--plugin") for path in paths]
    for place in places:
        kind_of(place)
    known = [path for path in os.environ.get(FILES_VARIABLE, "").split(os.pathsep) if path]
    os.environ[FILES_VARIABLE] = os.pathsep.join(dict.fromkeys([*known, *map(str, places)]))


def kind_of(place: Path) -> Kind[Any]:
    """The kind of the plugin in a file, by the hook that it defines; nothing of it is run."""
    try:
        tree = ast.parse(place.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"--plugin {place}: it cannot be read as Python ({error}).", fix="correct the file") from error
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = [kind for kind in KINDS if kind is not EXTENSION and kind.hook in defined]
    if not found and defined & set(EXTENSION_HOOKS):
        found = [EXTENSION]
    if len(found) != 1:
        what = ", ".join(kind.hook for kind in found) or "none"
        raise ConfigError(
            f"--plugin {place}: a plugin file defines the hook of one kind; this one defines {what}.", fix="engine plugins new KIND NAME"
        )
    return found[0]


def _existing(path: str, flag: str) -> Path:
    place = Path(path).resolve()
    if place.suffix != ".py" or not place.is_file():
        raise ConfigError(f"{flag} {path}: there is no such Python file.", fix="check the path")
    return place
