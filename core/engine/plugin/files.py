"""Plugins from single Python files, for flags that take a file's path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, EngineError
from engine.plugin.api import Choice
from engine.plugin.blame import failure, import_failure
from engine.plugin.discovery import Entry
from engine.plugin.kinds import Kind


def file_plugin(kind: Kind[Any], path: str, flag: str) -> Entry:
    """Import a plugin module from a file; its name is the file's without ``.py``.

    It is importable in this process alone, so this is for kinds that live in the front end. Raises ConfigError where there is no such
    file, and the :class:`engine.errors.PluginError` of whatever its import does.
    """
    place = Path(path)
    if place.suffix != ".py" or not place.is_file():
        raise ConfigError(f"{flag} {path}: there is no such Python file.", fix="check the path")
    entry = Entry(kind.name, place.stem, f"engine_file_{kind.name}_{place.stem}", f"file {place}")
    choice = Choice(kind.name, entry.name, entry.module, entry.distribution, entry.name)
    spec = importlib.util.spec_from_file_location(entry.module, place)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{flag} {path}: Python cannot import this file.", fix="check the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[entry.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[entry.module]
        if isinstance(error, EngineError) or not isinstance(error, Exception):
            raise
        blamed = import_failure(kind, choice, error) if isinstance(error, ImportError) else failure(kind, choice, error)
        raise blamed from error
    return entry
